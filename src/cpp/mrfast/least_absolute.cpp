#include "mrfast/least_absolute.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mrfast/dispatch.hpp"
#include "mrfast/linear_system.hpp"

namespace mrfast {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kRounding = 1e-10;     // relative, of slopes
constexpr double kNegligible = 1e-11;   // movement of a residual along an edge, to the largest one
constexpr double kPerturbation = 1e-9;  // of y, to the mean size
constexpr std::size_t kDraws = 64;      // a thread takes at once

// Normals of one SNP for eight draws, number m of draw l at [8 m + l].
MRFAST_DISPATCH void draw_normals(const NormalStream& stream, std::size_t snp, std::size_t pairs,
                                  std::size_t first_draw, double* z) {
  for (std::size_t q = 0; q < pairs; ++q)
    normal_pairs(stream, static_cast<std::uint32_t>(snp * pairs + q),
                 static_cast<std::uint32_t>(first_draw), z + 2 * q * kLanes,
                 z + (2 * q + 1) * kLanes);
}

}  // namespace

LeastAbsolute::LeastAbsolute(std::size_t rows, std::size_t columns)
    : n_(rows), p_(columns), b_(columns), r_(rows), moved_(rows), slopes_(columns), side_(rows) {
  crossings_.reserve(rows);
}

bool LeastAbsolute::fit(const double* x, const double* y, const double* w,
                        std::vector<std::size_t>& basis) {
  if (basis.size() != p_ || !invert_basis(x, basis)) {
    if (!independent_rows(x, w, basis) || !invert_basis(x, basis)) return false;
  }
  State state = descend(x, y, w, basis);
  // Rows that meet in one point can make the search go round in circles: then they are moved apart
  // by next to nothing, which leaves a basis that is optimal for the rows as they are too.
  double perturbation = 0;
  for (std::size_t i = 0; i < n_; ++i) perturbation += std::fabs(y[i]);
  perturbation *= kPerturbation / static_cast<double>(n_);
  for (int attempt = 0; attempt < 4 && state == State::kStalled; ++attempt) {
    Philox random(1, static_cast<std::uint64_t>(attempt));
    perturbed_.resize(n_);
    for (std::size_t i = 0; i < n_; ++i)
      perturbed_[i] = y[i] + perturbation * (random.uniform() - 0.5);
    if (!independent_rows(x, w, basis) || !invert_basis(x, basis)) return false;
    state = descend(x, perturbed_.data(), w, basis);
    if (state == State::kDone) solve(x, y, basis);
    perturbation *= 10;
  }
  return state == State::kDone;
}

bool LeastAbsolute::invert_basis(const double* x, const std::vector<std::size_t>& basis) {
  inverse_.resize(p_ * p_);
  for (std::size_t k = 0; k < p_; ++k)
    std::copy(x + basis[k] * p_, x + (basis[k] + 1) * p_,
              inverse_.begin() + static_cast<std::ptrdiff_t>(k * p_));
  return invert_in_place(inverse_, p_, pivots_);
}

void LeastAbsolute::solve(const double* x, const double* y, const std::vector<std::size_t>& basis) {
  for (std::size_t k = 0; k < p_; ++k) {
    b_[k] = 0;
    for (std::size_t l = 0; l < p_; ++l) b_[k] += inverse_[k * p_ + l] * y[basis[l]];
  }
  for (std::size_t i = 0; i < n_; ++i) {
    double e = y[i];
    for (std::size_t k = 0; k < p_; ++k) e -= b_[k] * x[i * p_ + k];
    r_[i] = e;
  }
  for (const std::size_t i : basis) r_[i] = 0;
}

// Rows by Gaussian elimination of the weighted matrix with full pivoting.
bool LeastAbsolute::independent_rows(const double* x, const double* w,
                                     std::vector<std::size_t>& basis) {
  square_.assign(x, x + n_ * p_);
  std::vector<double> columns(p_);
  for (std::size_t i = 0; i < n_; ++i)
    for (std::size_t k = 0; k < p_; ++k) {
      square_[i * p_ + k] *= w[i];
      columns[k] = std::max(columns[k], std::fabs(square_[i * p_ + k]));
    }
  for (std::size_t i = 0; i < n_; ++i)
    for (std::size_t k = 0; k < p_; ++k)
      square_[i * p_ + k] = columns[k] > 0 ? square_[i * p_ + k] / columns[k] : 0.0;
  basis.clear();
  std::vector<bool> used(p_);
  for (std::size_t step = 0; step < p_; ++step) {
    std::size_t row = 0, column = 0;
    double largest = 0;
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t k = 0; k < p_; ++k)
        if (!used[k] && std::fabs(square_[i * p_ + k]) > largest) {
          largest = std::fabs(square_[i * p_ + k]);
          row = i;
          column = k;
        }
    if (!(largest > 1e-12)) return false;
    basis.push_back(row);
    used[column] = true;
    const std::vector<double> pivot(square_.begin() + static_cast<std::ptrdiff_t>(row * p_),
                                    square_.begin() + static_cast<std::ptrdiff_t>((row + 1) * p_));
    for (std::size_t i = 0; i < n_; ++i) {
      const double factor = square_[i * p_ + column] / pivot[column];
      for (std::size_t k = 0; k < p_; ++k) square_[i * p_ + k] -= factor * pivot[k];
    }
    std::fill(square_.begin() + static_cast<std::ptrdiff_t>(row * p_),
              square_.begin() + static_cast<std::ptrdiff_t>((row + 1) * p_), 0.0);
  }
  return true;
}

// Where along an edge the slope, negative at first, is no longer: the crossing before which it is
// negative. Crossings before it are moved to the front; their number is returned.
std::size_t LeastAbsolute::lowest_point(double slope) {
  std::size_t low = 0, high = crossings_.size();
  const auto sooner = [](const Crossing& a, const Crossing& c) {
    return a.step < c.step || (a.step == c.step && a.row < c.row);
  };
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    const auto at = [&](std::size_t i) {
      return crossings_.begin() + static_cast<std::ptrdiff_t>(i);
    };
    std::nth_element(at(low), at(middle), at(high), sooner);
    double sum = 0;
    for (std::size_t i = low; i < middle; ++i) sum += crossings_[i].size;
    if (slope + sum >= 0) {
      high = middle;
    } else {
      slope += sum;
      low = middle;
    }
  }
  return low;
}

LeastAbsolute::State LeastAbsolute::descend(const double* x, const double* y, const double* w,
                                            std::vector<std::size_t>& basis) {
  solve(x, y, basis);
  for (std::size_t i = 0; i < n_; ++i) side_[i] = r_[i] < 0 ? -1 : 1;
  for (const std::size_t i : basis) side_[i] = 0;
  const std::size_t most = 100 + 20 * (n_ + p_);
  for (std::size_t step = 0; step < most; ++step) {
    // Slopes along the edges: pull of the other rows against the weight of the row that is left.
    std::fill(slopes_.begin(), slopes_.end(), 0.0);
    std::fill(moved_.begin(), moved_.begin() + static_cast<std::ptrdiff_t>(p_), 0.0);
    double* const pull = moved_.data();
    for (std::size_t i = 0; i < n_; ++i) {
      const double signed_weight = w[i] * side_[i];
      for (std::size_t k = 0; k < p_; ++k) pull[k] += signed_weight * x[i * p_ + k];
    }
    for (std::size_t k = 0; k < p_; ++k)
      for (std::size_t l = 0; l < p_; ++l) slopes_[l] += pull[k] * inverse_[k * p_ + l];
    std::size_t leaving = p_;
    double steepest = 1 + kRounding;
    unique_ = true;
    for (std::size_t l = 0; l < p_; ++l) {
      const double ratio = std::fabs(slopes_[l]) / w[basis[l]];
      if (ratio > 1 - kRounding) unique_ = false;
      if (ratio > steepest) {
        steepest = ratio;
        leaving = l;
      }
    }
    if (leaving == p_) return State::kDone;

    const double direction = slopes_[leaving] > 0 ? 1.0 : -1.0;
    double largest = 0;
    for (std::size_t i = 0; i < n_; ++i) {
      double change = 0;  // the residual falls by this along the edge
      for (std::size_t k = 0; k < p_; ++k) change += x[i * p_ + k] * inverse_[k * p_ + leaving];
      moved_[i] = direction * change;
      largest = std::max(largest, std::fabs(change));
    }
    crossings_.clear();
    for (std::size_t i = 0; i < n_; ++i)
      if (side_[i] * moved_[i] > kNegligible * largest)
        crossings_.push_back(
            {std::max(0.0, r_[i] / moved_[i]), 2 * w[i] * std::fabs(moved_[i]), i});
    if (crossings_.empty()) return State::kSingular;
    const std::size_t before = lowest_point(w[basis[leaving]] - std::fabs(slopes_[leaving]));
    for (std::size_t i = 0; i < before; ++i)
      side_[crossings_[i].row] = static_cast<signed char>(-side_[crossings_[i].row]);
    const std::size_t entering = crossings_[before].row;
    side_[basis[leaving]] = direction > 0 ? -1 : 1;
    side_[entering] = 0;
    basis[leaving] = entering;
    if (!invert_basis(x, basis)) return State::kStalled;
    solve(x, y, basis);
  }
  return State::kStalled;
}

void bootstrap_least_absolute(const MultipleAssociations& data, const NormalStream& stream,
                              const std::vector<std::size_t>& basis, std::size_t draws,
                              double* coefficients, std::size_t threads, Monitor& monitor) {
  const std::size_t j = data.snps, k = data.exposures, pairs = (k + 2) / 2;
  parallel_for((draws + kDraws - 1) / kDraws, threads, monitor, [&](std::size_t piece) {
    LeastAbsolute problem(j, k);
    std::vector<double> x(kLanes * j * k), y(kLanes * j), z(2 * pairs * kLanes);
    std::vector<std::size_t> own;
    const std::size_t end = std::min(draws, (piece + 1) * kDraws);
    for (std::size_t d = piece * kDraws; d < end; d += kLanes) {
      for (std::size_t i = 0; i < j; ++i) {
        draw_normals(stream, i, pairs, d, z.data());
        for (std::size_t l = 0; l < kLanes; ++l) {
          double* const row = x.data() + (l * j + i) * k;
          for (std::size_t a = 0; a < k; ++a) {
            double error = 0;
            for (std::size_t c = 0; c <= a; ++c) error += data.lower[a * k + c] * z[c * kLanes + l];
            row[a] = data.bx[i * k + a] + data.sx[i * k + a] * error;
          }
          y[l * j + i] = data.by[i] + data.sy[i] * z[k * kLanes + l];
        }
      }
      for (std::size_t l = 0; l < kLanes && d + l < end; ++l) {
        own = basis;
        double* const out = coefficients + (d + l) * k;
        if (problem.fit(x.data() + l * j * k, y.data() + l * j, data.weights, own))
          std::copy(problem.coefficients().begin(), problem.coefficients().end(), out);
        else
          std::fill(out, out + k, kNaN);
      }
    }
    monitor.step();
  });
}

}  // namespace mrfast
