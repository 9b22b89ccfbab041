#include "mrfast/robust_regression.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "mrfast/linear_system.hpp"
#include "mrfast/random.hpp"

namespace mrfast {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kChi = 1.54764;   // bisquare constant of breakdown point 1/2
constexpr double kPsi = 4.685061;  // of efficiency 0.95 with normal errors
constexpr double kHalf = 0.5;
constexpr int kIterations = 500;
constexpr double kTolerance = 1e-11;
constexpr std::size_t kBest = 5;  // candidates that are iterated to the end
constexpr std::uint64_t kSubsetSeed = 1;

double chi(double r) {
  const double u = (r / kChi) * (r / kChi);
  return u >= 1 ? 1.0 : 1.0 - (1 - u) * (1 - u) * (1 - u);
}
double weight(double r, double c) {
  const double u = (r / c) * (r / c);
  return u >= 1 ? 0.0 : (1 - u) * (1 - u);
}

using Coefficients = std::vector<double>;

struct Candidate {
  Coefficients b;
  double scale;
};

// n choose k, or `most` where it is larger.
std::size_t subsets(std::size_t n, std::size_t k, std::size_t most) {
  double count = 1;
  for (std::size_t i = 0; i < k; ++i)
    count *= static_cast<double>(n - i) / static_cast<double>(i + 1);
  return count < static_cast<double>(most) ? static_cast<std::size_t>(count + kHalf) : most;
}

class Regression {
 public:
  Regression(const double* x, const double* y, std::size_t n, std::size_t p)
      : x_(x), y_(y), n_(n), p_(p), r_(n), w_(n), gram_(p * p), right_(p) {}

  RobustFit fit(std::size_t most) {
    RobustFit out{Coefficients(p_, kNaN), std::vector<double>(p_ * p_, kNaN), kNaN, false};
    if (n_ <= p_) return out;
    Coefficients start(p_);
    std::fill(w_.begin(), w_.end(), 1.0);
    if (weighted_step(start)) consider(start);
    start_from_subsets(most);
    Candidate chosen{{}, std::numeric_limits<double>::infinity()};
    for (Candidate& c : best_) {
      converge(c);
      if (c.scale > 0 && c.scale < chosen.scale) chosen = c;
    }
    if (!std::isfinite(chosen.scale)) return out;
    residuals(chosen.b);
    const std::vector<double> first = r_;
    Coefficients b = chosen.b, before;
    for (int step = 0; step < kIterations; ++step) {
      before = b;
      residuals(b);
      for (std::size_t i = 0; i < n_; ++i) w_[i] = weight(r_[i] / chosen.scale, kPsi);
      if (!weighted_step(b)) return out;
      if (change(before, b) < kTolerance) break;
    }
    residuals(b);
    if (!covariance(first, chosen.scale, out.covariance)) return out;
    out.coefficients = b;
    out.scale = chosen.scale;
    out.valid = true;
    return out;
  }

 private:
  const double* row(std::size_t i) const { return x_ + p_ * i; }

  void residuals(const Coefficients& b) {
    for (std::size_t i = 0; i < n_; ++i) {
      double e = y_[i];
      for (std::size_t k = 0; k < p_; ++k) e -= b[k] * row(i)[k];
      r_[i] = e;
    }
  }

  // Inverse of the sum of w x x', in gram_; false where it is singular.
  bool inverse_gram() {
    std::fill(gram_.begin(), gram_.end(), 0.0);
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t k = 0; k < p_; ++k) {
        const double a = w_[i] * row(i)[k];
        for (std::size_t l = 0; l <= k; ++l) gram_[k * p_ + l] += a * row(i)[l];
      }
    for (std::size_t k = 0; k < p_; ++k)
      for (std::size_t l = 0; l < k; ++l) gram_[l * p_ + k] = gram_[k * p_ + l];
    return invert_definite_in_place(gram_, p_, work_);
  }

  bool weighted_step(Coefficients& b) {
    if (!inverse_gram()) return false;
    std::fill(right_.begin(), right_.end(), 0.0);
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t k = 0; k < p_; ++k) right_[k] += w_[i] * row(i)[k] * y_[i];
    times(gram_, right_, b);
    return true;
  }

  void times(const std::vector<double>& m, const Coefficients& v, Coefficients& out) const {
    for (std::size_t k = 0; k < p_; ++k)
      out[k] = std::inner_product(v.begin(), v.end(),
                                  m.begin() + static_cast<std::ptrdiff_t>(k * p_), 0.0);
  }

  // The M-scale of residuals: sum of chi(r / scale) = (n - p) / 2; 0 where too many of them vanish.
  double m_scale(double start, int steps) const {
    const double target = kHalf * static_cast<double>(n_ - p_);
    double scale = start;
    for (int step = 0; step < steps; ++step) {
      double sum = 0;
      for (const double r : r_) sum += chi(r / scale);
      const double next = scale * std::sqrt(sum / target);
      if (!(next > 0) || !std::isfinite(next)) return 0;
      const bool done = std::fabs(next - scale) <= kTolerance * scale;
      scale = next;
      if (done) break;
    }
    return scale;
  }

  double median_size() {
    work_.resize(n_);
    for (std::size_t i = 0; i < n_; ++i) work_[i] = std::fabs(r_[i]);
    const auto middle = work_.begin() + static_cast<std::ptrdiff_t>(n_ / 2);
    std::nth_element(work_.begin(), middle, work_.end());
    return *middle;
  }

  double change(const Coefficients& a, const Coefficients& b) const {
    double top = 0;
    for (std::size_t k = 0; k < p_; ++k)
      top = std::max(top, std::fabs(a[k] - b[k]) / (std::fabs(b[k]) + 1e-300));
    return top;
  }

  void consider(Coefficients b) {
    double scale = 0;
    for (int step = 0; step < 2; ++step) {
      residuals(b);
      scale = m_scale(median_size() / 0.6745 + 1e-300, 3);
      if (!(scale > 0)) return;
      for (std::size_t i = 0; i < n_; ++i) w_[i] = weight(r_[i] / scale, kChi);
      if (!weighted_step(b)) return;
    }
    residuals(b);
    scale = m_scale(scale, 3);
    if (!(scale > 0)) return;
    if (best_.size() == kBest && !(scale < best_.back().scale)) return;
    if (best_.size() == kBest) best_.pop_back();
    const Candidate c{std::move(b), scale};
    best_.insert(
        std::upper_bound(best_.begin(), best_.end(), c,
                         [](const Candidate& a, const Candidate& e) { return a.scale < e.scale; }),
        c);
  }

  // The coefficients that fit the rows exactly, if they are of full rank.
  void consider_rows(const std::vector<std::size_t>& rows) {
    square_.resize(p_ * p_);
    for (std::size_t k = 0; k < p_; ++k) {
      std::copy(row(rows[k]), row(rows[k]) + p_, square_.data() + k * p_);
      right_[k] = y_[rows[k]];
    }
    if (!invert_in_place(square_, p_, pivots_)) return;
    Coefficients b(p_);
    times(square_, right_, b);
    consider(std::move(b));
  }

  void start_from_subsets(std::size_t most) {
    std::vector<std::size_t> rows(p_);
    if (p_ == 2) {
      const std::size_t pairs = n_ * (n_ - 1) / 2;
      const std::size_t stride = pairs > most ? (pairs + most - 1) / most : 1;
      std::size_t count = 0;
      for (rows[0] = 0; rows[0] < n_; ++rows[0])
        for (rows[1] = rows[0] + 1; rows[1] < n_; ++rows[1])
          if (count++ % stride == 0) consider_rows(rows);
      return;
    }
    if (p_ == 1 || subsets(n_, p_, most + 1) <= most) {
      std::iota(rows.begin(), rows.end(), std::size_t{0});
      while (true) {
        consider_rows(rows);
        std::size_t k = p_;
        while (k > 0 && rows[k - 1] == n_ - p_ + k - 1) --k;
        if (k == 0) return;
        ++rows[k - 1];
        for (std::size_t l = k; l < p_; ++l) rows[l] = rows[l - 1] + 1;
      }
    }
    Philox random(kSubsetSeed, 0);
    for (std::size_t s = 0; s < most; ++s) {
      for (std::size_t k = 0; k < p_;) {
        rows[k] = random.below(n_);
        const auto end = rows.begin() + static_cast<std::ptrdiff_t>(k);
        if (std::find(rows.begin(), end, rows[k]) == end) ++k;
      }
      consider_rows(rows);
    }
  }

  void converge(Candidate& c) {
    Coefficients before;
    for (int step = 0; step < kIterations; ++step) {
      before = c.b;
      residuals(c.b);
      c.scale = m_scale(c.scale, kIterations);
      if (!(c.scale > 0)) break;
      for (std::size_t i = 0; i < n_; ++i) w_[i] = weight(r_[i] / c.scale, kChi);
      if (!weighted_step(c.b) || change(before, c.b) < kTolerance) break;
    }
    residuals(c.b);
    if (c.scale > 0) c.scale = m_scale(c.scale, kIterations);
  }

  // From the estimating equations of coefficients and of the scale of the first step, whose
  // residuals are `first`; those of the fit are in r_.
  bool covariance(const std::vector<double>& first, double scale, std::vector<double>& out) {
    const double size = static_cast<double>(n_);
    double slope_of_scale = 0, square = 0, centred = 0;
    std::vector<double> meat(p_ * p_);
    Coefficients right(p_), mixed(p_), a(p_), c(p_);
    for (std::size_t i = 0; i < n_; ++i) {
      const double u = r_[i] / scale, v = (u / kPsi) * (u / kPsi);
      const double psi = u * weight(u, kPsi), derivative = v >= 1 ? 0.0 : (1 - v) * (1 - 5 * v);
      const double f = first[i] / scale, excess = chi(f) - kHalf;
      w_[i] = derivative;
      slope_of_scale += 6 * f / (kChi * kChi) * weight(f, kChi) * f / size;
      centred += excess * excess / size;
      square += (excess * excess + excess) / size;
      for (std::size_t k = 0; k < p_; ++k) {
        right[k] += derivative * u * row(i)[k];
        mixed[k] += excess * psi * row(i)[k];
        for (std::size_t l = 0; l < p_; ++l) meat[k * p_ + l] += psi * psi * row(i)[k] * row(i)[l];
      }
    }
    if (!inverse_gram() || !(slope_of_scale > 0)) return false;
    times(gram_, right, a);
    times(gram_, mixed, c);
    for (double& value : a) value *= scale / slope_of_scale;
    for (double& value : c) value *= scale;
    const auto entry = [&](std::size_t i, std::size_t k) {
      double sum = 0;
      for (std::size_t s = 0; s < p_; ++s)
        for (std::size_t t = 0; t < p_; ++t)
          sum += gram_[i * p_ + s] * meat[s * p_ + t] * gram_[t * p_ + k];
      return (scale * scale * size * sum - a[i] * c[k] - c[i] * a[k] + square * a[i] * a[k]) / size;
    };
    // Mean of chi^2 - 1/4 as robustbase has it; with few SNPs it may be too small for a variance.
    for (std::size_t k = 0; k < p_; ++k)
      if (!(entry(k, k) > 0)) square = centred;
    for (std::size_t i = 0; i < p_; ++i)
      for (std::size_t k = 0; k < p_; ++k) out[i * p_ + k] = entry(i, k);
    return true;
  }

  const double *x_, *y_;
  std::size_t n_, p_;
  std::vector<double> r_, w_, gram_, right_, square_, work_;
  std::vector<std::size_t> pivots_;
  std::vector<Candidate> best_;
};

}  // namespace

RobustFit fit_robust(const double* design, const double* y, std::size_t n, std::size_t columns,
                     std::size_t most) {
  return Regression(design, y, n, columns).fit(most);
}

}  // namespace mrfast
