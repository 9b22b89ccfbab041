#include "mrfast/constrained.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/normal_law.hpp"
#include "mrfast/vector8.hpp"

namespace mrfast {

namespace {

constexpr std::uint32_t kPurpose = 0x636d6c00;  // of the draws: "cml"
constexpr int kSteps = 200;                     // of one minimisation, halved ones included
constexpr int kSweeps = 8;                      // over the models
constexpr std::size_t kBetween = 128;           // effects looked at between those of the models
constexpr std::size_t kRounds = 4;              // of that with several exposures
constexpr double kWeighty = 40;       // of BIC above the least: models whose range that is
constexpr double kBeyond = 0.25;      // and beyond them, in their range
constexpr double kTolerance = 1e-11;  // of F_K, relative to 1 + F_K
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Exchange {
  std::uint32_t low, high;
};

// Eight data sets side by side, with the same standard errors.
struct Sets {
  std::size_t snps, width;
  std::vector<Lanes> x;     // (snps, width)
  std::vector<Lanes> y;     // (snps)
  const double* sx;         // (snps, width)
  const double* sy;         // (snps)
  const double* r;          // (width + 1)^2
  std::vector<Lanes> q;     // contributions
  std::vector<Lanes> u;     // residual over its variance
  std::vector<Lanes> w;     // one over the variance
  std::vector<Lanes> rank;  // contributions, the largest in order at the end
  std::vector<Exchange> order;
};

// The exchanges of Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M)
// that the places from `first` on depend on: these are then in order, and not below the others.
std::vector<Exchange> exchanges(std::size_t n, std::size_t first) {
  std::vector<Exchange> all;
  std::size_t top = 1;
  while (2 * top < n) top *= 2;
  for (std::size_t p = top; p > 0 && n > 1; p /= 2) {
    std::size_t span = top, r = 0, d = p;
    while (true) {
      for (std::size_t i = 0; i + d < n; ++i)
        if ((i & p) == r)
          all.push_back({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i + d)});
      if (span == p) break;
      d = span - p;
      span /= 2;
      r = p;
    }
  }
  std::vector<bool> needed(n);
  std::fill(needed.begin() + static_cast<std::ptrdiff_t>(first), needed.end(), true);
  std::vector<Exchange> out;
  for (std::size_t i = all.size(); i-- > 0;) {
    if (!needed[all[i].low] && !needed[all[i].high]) continue;
    needed[all[i].low] = needed[all[i].high] = true;
    out.push_back(all[i]);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

MRFAST_INLINE void sort_lanes(Lanes* __restrict a, const std::vector<Exchange>& order) {
  for (const Exchange& e : order) exchange(a[e.low].v, a[e.high].v);
}

// Width 0 stands for any.
template <std::size_t Width>
MRFAST_INLINE void contributions(Sets& s, const Lanes* effects) {
  const std::size_t width = Width ? Width : s.width;
  const double* const to_outcome = s.r + width * (width + 1);
  Lanes* __restrict const q = s.q.data();
  Lanes* __restrict const u = s.u.data();
  Lanes* __restrict const w = s.w.data();
  Lanes* __restrict const rank = s.rank.data();
  for (std::size_t j = 0; j < s.snps; ++j) {
    const double* const sx = s.sx + j * width;
    const double sy = s.sy[j];
    const Lanes* const x = s.x.data() + j * width;
    Lanes e = s.y[j], v;
    for (std::size_t l = 0; l < kLanes; ++l) v.v[l] = sy * sy;
    for (std::size_t m = 0; m < width; ++m) {
      Lanes sum;  // (R a)_m, of a = effect times standard error, doubled off the diagonal
      for (std::size_t l = 0; l < kLanes; ++l)
        sum.v[l] = effects[m].v[l] * sx[m] - 2 * to_outcome[m] * sy;
      for (std::size_t n = 0; n < m; ++n) {
        const double factor = 2 * s.r[m * (width + 1) + n] * sx[n];
        for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += factor * effects[n].v[l];
      }
      for (std::size_t l = 0; l < kLanes; ++l) {
        e.v[l] -= effects[m].v[l] * x[m].v[l];
        v.v[l] += effects[m].v[l] * sx[m] * sum.v[l];
      }
    }
    Lanes inverse, scaled, value;
    for (std::size_t l = 0; l < kLanes; ++l) inverse.v[l] = 1 / v.v[l];
    for (std::size_t l = 0; l < kLanes; ++l) scaled.v[l] = e.v[l] * inverse.v[l];
    for (std::size_t l = 0; l < kLanes; ++l) value.v[l] = e.v[l] * scaled.v[l];
    w[j] = inverse;
    u[j] = scaled;
    q[j] = rank[j] = value;
  }
  sort_lanes(s.rank.data(), s.order);
}

// Gradient and curvature of half the sum of the contributions below `limit`, those at it counted
// with weight `share`; `outer` is the part of the curvature that is never negative. Lower triangles
// are stored row by row.
template <std::size_t Width>
MRFAST_INLINE void derivatives(const Sets& s, const Lanes* effects, const Lanes& limit,
                               const Lanes& share, Lanes* __restrict gradient,
                               Lanes* __restrict curvature, Lanes* __restrict outer) {
  const std::size_t width = Width ? Width : s.width;
  const double* const to_outcome = s.r + width * (width + 1);
  for (std::size_t j = 0; j < s.snps; ++j) {
    const double* const sx = s.sx + j * width;
    const double sy = s.sy[j];
    const Lanes* const x = s.x.data() + j * width;
    Lanes kept;
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double q = s.q[j].v[l];
      kept.v[l] = q < limit.v[l] ? 1.0 : (q == limit.v[l] ? share.v[l] : 0.0);
    }
    constexpr std::size_t kStack = Width ? Width : 32;
    Lanes slope[kStack];  // of the residual along its own variance: x + u dv
    for (std::size_t m = 0; m < width; ++m) {
      Lanes half;  // dv / 2
      for (std::size_t l = 0; l < kLanes; ++l) half.v[l] = -to_outcome[m] * sy;
      for (std::size_t n = 0; n < width; ++n) {
        const double factor = s.r[m * (width + 1) + n] * sx[n];
        for (std::size_t l = 0; l < kLanes; ++l) half.v[l] += factor * effects[n].v[l];
      }
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double change = s.u[j].v[l] * sx[m] * half.v[l];
        gradient[m].v[l] -= kept.v[l] * s.u[j].v[l] * (x[m].v[l] + change);
        slope[m].v[l] = x[m].v[l] + 2 * change;
      }
    }
    for (std::size_t m = 0; m < width; ++m) {
      for (std::size_t n = 0; n <= m; ++n) {
        const double product = s.r[m * (width + 1) + n] * sx[m] * sx[n];
        const std::size_t at = packed(m) + n;
        for (std::size_t l = 0; l < kLanes; ++l) {
          const double square = kept.v[l] * (s.w[j].v[l] * slope[m].v[l]) * slope[n].v[l];
          const double u = s.u[j].v[l];
          outer[at].v[l] += square;
          curvature[at].v[l] += square - kept.v[l] * (u * u) * product;
        }
      }
    }
  }
}

MRFAST_DISPATCH void contributions_one(Sets& s, const Lanes* effects) {
  contributions<1>(s, effects);
}
MRFAST_DISPATCH void contributions_many(Sets& s, const Lanes* effects) {
  contributions<0>(s, effects);
}
MRFAST_DISPATCH void derivatives_one(const Sets& s, const Lanes* effects, const Lanes& limit,
                                     const Lanes& share, Lanes* gradient, Lanes* curvature,
                                     Lanes* outer) {
  derivatives<1>(s, effects, limit, share, gradient, curvature, outer);
}
MRFAST_DISPATCH void derivatives_many(const Sets& s, const Lanes* effects, const Lanes& limit,
                                      const Lanes& share, Lanes* gradient, Lanes* curvature,
                                      Lanes* outer) {
  derivatives<0>(s, effects, limit, share, gradient, curvature, outer);
}

// Contributions below a limit, and at it.
MRFAST_DISPATCH void count_ties(const Lanes* __restrict q, std::size_t snps, const Lanes& limit,
                                Lanes& below, Lanes& equal) {
  Lanes less{}, same{};
  for (std::size_t j = 0; j < snps; ++j) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      less.v[l] += q[j].v[l] < limit.v[l] ? 1.0 : 0.0;
      same.v[l] += q[j].v[l] == limit.v[l] ? 1.0 : 0.0;
    }
  }
  below = less;
  equal = same;
}

// Keeps, for the models first, ..., last, the effects with the least F_K so far.
MRFAST_DISPATCH void keep_best(const Lanes* __restrict rank, std::size_t snps, std::size_t first,
                               std::size_t last, const Lanes* __restrict effects, std::size_t width,
                               Lanes* __restrict best, Lanes* __restrict best_effects) {
  Lanes sum{};
  for (std::size_t i = 0; i + last < snps; ++i)
    for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += rank[i].v[l];
  for (std::size_t k = last + 1; k-- > first;) {
    Lanes* const to = best_effects + k * width;
    for (std::size_t m = 0; m < width; ++m)
      for (std::size_t l = 0; l < kLanes; ++l)
        to[m].v[l] = sum.v[l] < best[k].v[l] ? effects[m].v[l] : to[m].v[l];
    for (std::size_t l = 0; l < kLanes; ++l)
      best[k].v[l] = sum.v[l] < best[k].v[l] ? sum.v[l] : best[k].v[l];
    if (k > 0)
      for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += rank[snps - k].v[l];
  }
}

MRFAST_DISPATCH void draw_sets(const ConstrainedData& data, const double* factor, Philox::Key key,
                               std::uint32_t first, Lanes* x, Lanes* y) {
  const std::size_t width = data.exposures, order = width + 1;
  Lanes z[34];
  for (std::size_t j = 0; j < data.snps; ++j) {
    for (std::size_t m = 0; m < order; m += 2)
      normal_pairs({key, static_cast<std::uint32_t>(m / 2), kPurpose},
                   static_cast<std::uint32_t>(j), first, z[m].v, z[m + 1].v);
    for (std::size_t m = 0; m < order; ++m) {
      Lanes error{};
      for (std::size_t n = 0; n <= m; ++n)
        for (std::size_t l = 0; l < kLanes; ++l) error.v[l] += factor[m * order + n] * z[n].v[l];
      const std::size_t at = j * width + m;
      Lanes& to = m < width ? x[at] : y[j];
      const double centre = m < width ? data.beta_exposure[at] : data.beta_outcome[j];
      const double scale = m < width ? data.se_exposure[at] : data.se_outcome[j];
      for (std::size_t l = 0; l < kLanes; ++l) to.v[l] = centre + scale * error.v[l];
    }
  }
}

// Lower Cholesky factor of a packed lower triangle, in place; false where it is not positive
// definite.
bool factorise(double* a, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    const double diagonal = a[packed(j) + j];
    double pivot = diagonal;
    for (std::size_t k = 0; k < j; ++k) pivot -= a[packed(j) + k] * a[packed(j) + k];
    if (!(pivot > 1e-13 * std::abs(diagonal))) return false;
    pivot = std::sqrt(pivot);
    a[packed(j) + j] = pivot;
    for (std::size_t i = j + 1; i < n; ++i) {
      double sum = a[packed(i) + j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[packed(i) + k] * a[packed(j) + k];
      a[packed(i) + j] = sum / pivot;
    }
  }
  return true;
}

void substitute(const double* lower, std::size_t n, double* b) {
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= lower[packed(i) + k] * b[k];
    b[i] /= lower[packed(i) + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= lower[packed(k) + i] * b[k];
    b[i] /= lower[packed(i) + i];
  }
}

std::size_t next_prime(std::size_t n) {
  const auto is_prime = [](std::size_t p) {
    for (std::size_t d = 2; d * d <= p; ++d)
      if (p % d == 0) return false;
    return true;
  };
  do ++n;
  while (!is_prime(n));
  return n;
}

class Search {
 public:
  explicit Search(const ConstrainedData& data)
      : width_(data.exposures), triangle_(packed(width_)), models_(constrained_count(data)) {
    const std::size_t n = data.snps;
    sets_.snps = n;
    sets_.width = width_;
    sets_.x.resize(n * width_);
    for (auto* rows : {&sets_.y, &sets_.q, &sets_.u, &sets_.w, &sets_.rank}) rows->resize(n);
    sets_.sx = data.se_exposure;
    sets_.sy = data.se_outcome;
    sets_.r = data.correlation;
    best_.resize(models_);
    settled_.resize(models_);
    effects_.resize(models_ * width_);
    at_.resize(width_);
    low_.resize(width_);
    high_.resize(width_);
    base_.resize(width_);
    step_.resize(width_);
    gradient_.resize(width_);
    curvature_.resize(triangle_);
    outer_.resize(triangle_);
    matrix_.resize(triangle_);
    vector_.resize(width_);
  }

  Lanes* x() { return sets_.x.data(); }
  Lanes* y() { return sets_.y.data(); }
  const Lanes& deviance(std::size_t k) const { return best_[k]; }
  const Lanes* effects(std::size_t k) const { return effects_.data() + k * width_; }

  // Looks at the starts; `apart`, each lane has its own ones. False where it was stopped.
  bool begin(const ConstrainedStarts& starts, bool apart, double penalty, double cutoff,
             Monitor& monitor) {
    penalty_ = penalty;
    cutoff_ = cutoff;
    last_ = models_ - 1;
    order();
    std::fill(best_.begin(), best_.end(), filled(kInfinity));
    std::fill(settled_.begin(), settled_.end(), filled(kInfinity));
    const std::size_t lanes = apart ? kLanes : 1;
    for (std::size_t i = 0; i * lanes < starts.count; ++i) {
      for (std::size_t l = 0; l < kLanes; ++l)
        for (std::size_t m = 0; m < width_; ++m)
          at_[m].v[l] = starts.effects[(i * lanes + l % lanes) % starts.count * width_ + m];
      look();
      if (i % 16 == 0) {  // F_K is never negative
        const Lanes least = least_bic();
        while (last_ > 0 && !any_lane([&](std::size_t l) {
                 return penalty * static_cast<double>(last_) < least.v[l] + cutoff;
               }))
          --last_;
        order();
        if (monitor.step(0)) return false;
      }
    }
    return true;
  }

  // Minimises F_K for every model whose BIC may be less than `cutoff` above the least.
  // False where it was stopped.
  bool finish(Monitor& monitor) {
    std::size_t rounds = width_ == 1 ? 1 : kRounds;
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      const Lanes least = least_bic();
      const auto near = [&](std::size_t k, std::size_t l) {
        return best_[k].v[l] + penalty_ * static_cast<double>(k) < least.v[l] + cutoff_;
      };
      while (last_ > 0 && !any_lane([&](std::size_t l) { return near(last_, l); })) --last_;
      order();
      bool changed = false;
      std::fill(low_.begin(), low_.end(), filled(kInfinity));
      std::fill(high_.begin(), high_.end(), filled(-kInfinity));
      for (std::size_t k = 0; k <= last_; ++k) {
        bool wanted[kLanes];
        for (std::size_t l = 0; l < kLanes; ++l)
          wanted[l] =
              near(k, l) && settled_[k].v[l] - best_[k].v[l] > kTolerance * (1 + best_[k].v[l]);
        if (any_lane([&](std::size_t l) { return wanted[l]; })) {
          if (monitor.step(0)) return false;
          minimise(k, wanted);
          changed = true;
        }
        for (std::size_t l = 0; l < kLanes; ++l) {
          if (best_[k].v[l] + penalty_ * static_cast<double>(k) > least.v[l] + kWeighty) continue;
          for (std::size_t m = 0; m < width_; ++m) {
            low_[m].v[l] = std::min(low_[m].v[l], effects_[k * width_ + m].v[l]);
            high_[m].v[l] = std::max(high_[m].v[l], effects_[k * width_ + m].v[l]);
          }
        }
      }
      if (rounds > 0) {
        --rounds;
        look_between();
      } else if (!changed) {
        break;
      }
    }
    return true;
  }

  // Where all lanes hold the same data: gives every lane the best effects of any.
  void share() {
    for (std::size_t k = 0; k < models_; ++k) {
      const double* const values = best_[k].v;
      const auto lane =
          static_cast<std::size_t>(std::min_element(values, values + kLanes) - values);
      best_[k] = filled(values[lane]);
      for (std::size_t m = 0; m < width_; ++m)
        effects_[k * width_ + m] = filled(effects_[k * width_ + m].v[lane]);
    }
    std::fill(settled_.begin(), settled_.end(), filled(kInfinity));
  }

  // Curvature of F_K / 2 in the first data set, (width, width).
  void curvature(std::size_t k, double* out) {
    std::copy(effects(k), effects(k) + width_, at_.begin());
    contribute();
    differentiate(k);
    for (std::size_t m = 0; m < width_; ++m)
      for (std::size_t n = 0; n < width_; ++n)
        out[m * width_ + n] = curvature_[packed(std::max(m, n)) + std::min(m, n)].v[0];
  }

  Lanes least_bic() const {
    Lanes least = best_[0];
    for (std::size_t k = 1; k <= last_; ++k)
      for (std::size_t l = 0; l < kLanes; ++l)
        least.v[l] = std::min(least.v[l], best_[k].v[l] + penalty_ * static_cast<double>(k));
    return least;
  }

  std::size_t last() const { return last_; }

 private:
  template <class Test>
  static bool any_lane(const Test& test) {
    for (std::size_t l = 0; l < kLanes; ++l)
      if (test(l)) return true;
    return false;
  }
  static Lanes filled(double value) {
    Lanes lanes;
    std::fill_n(lanes.v, kLanes, value);
    return lanes;
  }

  // Looks at effects that fill the box about those of the models evenly (Halton's sequence).
  void look_between() {
    for (std::size_t i = 1; i <= kBetween * width_; ++i) {
      std::size_t base = 1;
      for (std::size_t m = 0; m < width_; ++m) {
        base = next_prime(base);
        double part = 0, digit = 1.0 / static_cast<double>(base);
        for (std::size_t rest = i; rest > 0; rest /= base) {
          part += digit * static_cast<double>(rest % base);
          digit /= static_cast<double>(base);
        }
        part = part * (1 + 2 * kBeyond) - kBeyond;
        for (std::size_t l = 0; l < kLanes; ++l)
          at_[m].v[l] = low_[m].v[l] + part * (high_[m].v[l] - low_[m].v[l]);
      }
      look();
    }
  }

  // Sorts no more than the models still in play ask for.
  void order() {
    if (sets_.order.empty() || 4 * last_ <= 3 * ordered_) {
      sets_.order = exchanges(sets_.snps, sets_.snps - last_ - 1);
      ordered_ = last_;
    }
  }

  void contribute() {
    if (width_ == 1)
      contributions_one(sets_, at_.data());
    else
      contributions_many(sets_, at_.data());
  }

  void look() {
    contribute();
    keep_best(sets_.rank.data(), sets_.snps, 0, last_, at_.data(), width_, best_.data(),
              effects_.data());
  }

  // Derivatives of F_K / 2 where `contribute` was last called, its set of SNPs held.
  void differentiate(std::size_t k) {
    const std::size_t kept = sets_.snps - k;
    const Lanes limit = sets_.rank[kept - 1];
    Lanes share, below, equal;
    count_ties(sets_.q.data(), sets_.snps, limit, below, equal);
    for (std::size_t l = 0; l < kLanes; ++l)
      share.v[l] = (static_cast<double>(kept) - below.v[l]) / equal.v[l];
    for (auto* sums : {&gradient_, &curvature_, &outer_})
      std::fill(sums->begin(), sums->end(), Lanes{});
    const auto run = width_ == 1 ? derivatives_one : derivatives_many;
    run(sets_, at_.data(), limit, share, gradient_.data(), curvature_.data(), outer_.data());
  }

  // Newton's step of one data set, or that of the part of the curvature that is never negative;
  // returns by how much F_K should fall.
  double direct(std::size_t l) {
    for (const auto* from : {&curvature_, &outer_}) {
      for (std::size_t i = 0; i < triangle_; ++i) matrix_[i] = (*from)[i].v[l];
      if (!factorise(matrix_.data(), width_)) continue;
      for (std::size_t m = 0; m < width_; ++m) vector_[m] = -gradient_[m].v[l];
      substitute(matrix_.data(), width_, vector_.data());
      double drop = 0;
      bool finite = true;
      for (std::size_t m = 0; m < width_; ++m) {
        drop -= gradient_[m].v[l] * vector_[m];
        finite = finite && std::isfinite(vector_[m]);
      }
      if (!finite) continue;
      for (std::size_t m = 0; m < width_; ++m) step_[m].v[l] = vector_[m];
      newton_[l] = from == &curvature_;
      return drop;
    }
    return 0;
  }

  double sum_kept(std::size_t k, std::size_t l) const {
    double sum = 0;
    for (std::size_t i = 0; i + k < sets_.snps; ++i) sum += sets_.rank[i].v[l];
    return sum;
  }

  // Newton's method on the SNPs kept, which are chosen anew at every step; every step lowers F_K.
  void minimise(std::size_t k, const bool* wanted) {
    Lanes value = best_[k];
    bool going[kLanes];
    std::copy(effects_.begin() + static_cast<std::ptrdiff_t>(k * width_),
              effects_.begin() + static_cast<std::ptrdiff_t>((k + 1) * width_), base_.begin());
    at_ = base_;
    look();
    differentiate(k);
    bool any = false;
    for (std::size_t l = 0; l < kLanes; ++l) {
      going[l] = wanted[l] && advance(l, value.v[l]);
      any = any || going[l];
    }
    for (int i = 0; i < kSteps && any; ++i) {
      for (std::size_t m = 0; m < width_; ++m)
        for (std::size_t l = 0; l < kLanes; ++l)
          at_[m].v[l] = base_[m].v[l] + (going[l] ? step_[m].v[l] : 0.0);
      look();
      differentiate(k);
      any = false;
      for (std::size_t l = 0; l < kLanes; ++l) {
        if (!going[l]) continue;
        const double found = sum_kept(k, l);
        if (found <= value.v[l]) {
          for (std::size_t m = 0; m < width_; ++m) base_[m].v[l] = at_[m].v[l];
          value.v[l] = found;
          going[l] = advance(l, found);
        } else {
          double largest = 0;
          for (std::size_t m = 0; m < width_; ++m) {
            step_[m].v[l] *= 0.5;
            largest = std::max(largest, std::abs(step_[m].v[l]) - 1e-14 * std::abs(base_[m].v[l]));
          }
          going[l] = largest > 0;
        }
        any = any || going[l];
      }
    }
    for (std::size_t l = 0; l < kLanes; ++l) {
      if (!wanted[l]) continue;
      if (value.v[l] <= best_[k].v[l]) {
        best_[k].v[l] = value.v[l];
        for (std::size_t m = 0; m < width_; ++m) effects_[k * width_ + m].v[l] = base_[m].v[l];
      }
      settled_[k].v[l] = best_[k].v[l];
    }
  }

  // Sets out the next step of a data set. False where none is needed: a last one, too small to
  // change the value, has then been taken.
  bool advance(std::size_t l, double value) {
    const double drop = direct(l);
    if (!(drop > 0)) return false;
    if (drop > kTolerance * (1 + value) || !newton_[l])
      return drop > 1e-3 * kTolerance * (1 + value);
    for (std::size_t m = 0; m < width_; ++m) base_[m].v[l] += step_[m].v[l];
    return false;
  }

  std::size_t width_, triangle_, models_, last_ = 0, ordered_ = 0;
  Sets sets_;
  std::vector<Lanes> best_, settled_, effects_;  // of every model
  std::vector<Lanes> low_, high_;                // range of the effects of the models in play
  std::vector<Lanes> at_, base_, step_, gradient_, curvature_, outer_;
  std::vector<double> matrix_, vector_;
  bool newton_[kLanes] = {};
  double penalty_ = 0, cutoff_ = kInfinity;
};

}  // namespace

void constrained_models(const ConstrainedData& data, const ConstrainedStarts& starts,
                        double* effects, double* deviance, double* curvature, Monitor& monitor) {
  Search search(data);
  const std::size_t width = data.exposures;
  for (std::size_t j = 0; j < data.snps; ++j) {
    std::fill_n(search.y()[j].v, kLanes, data.beta_outcome[j]);
    for (std::size_t m = 0; m < width; ++m)
      std::fill_n(search.x()[j * width + m].v, kLanes, data.beta_exposure[j * width + m]);
  }
  if (!search.begin(starts, true, 0, kInfinity, monitor) || !search.finish(monitor)) return;
  search.share();
  if (!search.finish(monitor)) return;
  for (std::size_t k = 0; k < constrained_count(data); ++k) {
    for (std::size_t m = 0; m < width; ++m) effects[k * width + m] = search.effects(k)[m].v[0];
    deviance[k] = search.deviance(k).v[0];
    search.curvature(k, curvature + k * width * width);
  }
}

void constrained_draws(const ConstrainedData& data, const ConstrainedStarts& starts, double penalty,
                       double cutoff, Philox::Key key, std::size_t draws, std::size_t threads,
                       double* averaged, double* selected, Monitor& monitor) {
  const std::size_t width = data.exposures, order = width + 1;
  std::vector<double> lower(packed(order)), factor(order * order);
  for (std::size_t m = 0; m < order; ++m)
    for (std::size_t n = 0; n <= m; ++n) lower[packed(m) + n] = data.correlation[m * order + n];
  factorise(lower.data(), order);
  for (std::size_t m = 0; m < order; ++m)
    for (std::size_t n = 0; n <= m; ++n) factor[m * order + n] = lower[packed(m) + n];
  parallel_for((draws + kLanes - 1) / kLanes, threads, monitor, [&](std::size_t batch) {
    Search search(data);
    const std::size_t first = batch * kLanes;
    draw_sets(data, factor.data(), key, static_cast<std::uint32_t>(first), search.x(), search.y());
    if (!search.begin(starts, false, penalty, cutoff, monitor) || !search.finish(monitor)) return;
    const Lanes least = search.least_bic();
    for (std::size_t l = 0; l < kLanes && first + l < draws; ++l) {
      double* const mean = averaged + (first + l) * width;
      double* const chosen = selected + (first + l) * width;
      double total = 0;
      std::fill_n(mean, width, 0.0);
      for (std::size_t k = 0; k <= search.last(); ++k) {
        const double above =
            search.deviance(k).v[l] + penalty * static_cast<double>(k) - least.v[l];
        if (above >= cutoff) continue;
        const double weight = std::exp(-above / 2);
        total += weight;
        for (std::size_t m = 0; m < width; ++m) mean[m] += weight * search.effects(k)[m].v[l];
        if (above <= 0)
          for (std::size_t m = 0; m < width; ++m) chosen[m] = search.effects(k)[m].v[l];
      }
      for (std::size_t m = 0; m < width; ++m) mean[m] /= total;
    }
    monitor.step(kLanes);
  });
}

}  // namespace mrfast
