#include "mrfast/presso.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/normal_law.hpp"

namespace mrfast {

namespace {

constexpr double kSingular = 1e-10;              // smallest pivot, and 1 - leverage, relative
constexpr std::uint64_t kChunk = 512;            // draws that a thread takes at once
constexpr std::uint32_t kDistortion = 1u << 16;  // purpose of its draws; the global test's is 0

// K exposures: a constant of the compiler where it is above 0.
template <std::size_t K>
constexpr std::size_t size_of(std::size_t exposures) {
  return K > 0 ? K : exposures;
}

// Cholesky factor of a packed lower triangle, in place.
bool factor(std::size_t k, double* m) {
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = m[packed(i) + j];
      for (std::size_t l = 0; l < j; ++l) sum -= m[packed(i) + l] * m[packed(j) + l];
      if (i == j) {
        if (!(sum > kSingular * m[packed(i) + i])) return false;
        m[packed(i) + i] = std::sqrt(sum);
      } else {
        m[packed(i) + j] = sum / m[packed(j) + j];
      }
    }
  }
  return true;
}

template <std::size_t K>
void forward(std::size_t exposures, const double* lower, double* b) {
  const std::size_t k = size_of<K>(exposures);
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t l = 0; l < i; ++l) b[i] -= lower[packed(i) + l] * b[l];
    b[i] /= lower[packed(i) + i];
  }
}

template <std::size_t K>
void backward(std::size_t exposures, const double* lower, double* b) {
  const std::size_t k = size_of<K>(exposures);
  for (std::size_t i = k; i-- > 0;) {
    for (std::size_t l = i + 1; l < k; ++l) b[i] -= lower[packed(l) + i] * b[l];
    b[i] /= lower[packed(i) + i];
  }
}

// trace(C X) and powers of it need the product only; matrices (n, n), row by row.
std::vector<double> multiply(std::size_t n, const std::vector<double>& a,
                             const std::vector<double>& b) {
  std::vector<double> out(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t l = 0; l < n; ++l)
      for (std::size_t j = 0; j < n; ++j) out[i * n + j] += a[i * n + l] * b[l * n + j];
  return out;
}

double trace_of_product(std::size_t n, const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t l = 0; l < n; ++l) sum += a[i * n + l] * b[l * n + i];
  return sum;
}

double trace(std::size_t n, const std::vector<double>& a) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i * n + i];
  return sum;
}

// The sum of squares under the null is about (d + M xi)' D (d + M xi), M = I - Q Q', xi ~ N(0, V)
// with D and V diagonal. M D M = D + P C P' with P = [Q, D Q], so that its cumulants need sums of
// P P' over the SNPs alone.
template <std::size_t K>
class NullCumulants {
 public:
  explicit NullCumulants(std::size_t exposures)
      : k_(size_of<K>(exposures)),
        p_(2 * k_),
        x0_(4 * k_ * k_, 0.0),
        x1_(x0_),
        x2_(x0_),
        kappa_(k_ * k_, 0.0),
        qdd_(k_, 0.0) {}

  // One SNP: its row q of Q, D, V and d.
  void add(const double* q, double weight, double variance, double shift) {
    const double dv = weight * variance;
    for (std::size_t i = 0; i < k_; ++i) {
      p_[i] = q[i];
      p_[k_ + i] = weight * q[i];
      qdd_[i] += weight * q[i] * shift;
      for (std::size_t j = 0; j < k_; ++j) kappa_[i * k_ + j] += weight * q[i] * q[j];
    }
    const std::size_t n = 2 * k_;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j <= i; ++j) {
        const double product = p_[i] * p_[j] * variance;
        x0_[i * n + j] += product;
        x1_[i * n + j] += product * dv;
        x2_[i * n + j] += product * dv * dv;
      }
    t1_ += dv;
    t2_ += dv * dv;
    t3_ += dv * dv * dv;
    dd_ += weight * shift * shift;
  }

  // Sums over the SNPs that need what the first pass found.
  void add_shift(const double* q, double weight, double variance, double shift) {
    double g = weight * shift;
    for (std::size_t i = 0; i < k_; ++i) g -= q[i] * qdd_[i];
    const double vg = variance * g;
    c2_ += vg * g;
    c3_ += weight * vg * vg;
    for (std::size_t i = 0; i < k_; ++i) {
      p_[i] += q[i] * vg;
      p_[k_ + i] += weight * q[i] * vg;
    }
  }
  void begin_shift() { std::fill(p_.begin(), p_.end(), 0.0); }

  void finish(double* cumulants) {
    const std::size_t n = 2 * k_;
    std::vector<double> c(n * n, 0.0);
    for (std::size_t i = 0; i < k_; ++i) {
      c[i * n + k_ + i] = c[(k_ + i) * n + i] = -1;
      for (std::size_t j = 0; j < k_; ++j) c[i * n + j] = kappa_[i * k_ + j];
    }
    for (auto* x : {&x0_, &x1_, &x2_})
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < i; ++j) (*x)[j * n + i] = (*x)[i * n + j];
    const auto cx0 = multiply(n, c, x0_), cx1 = multiply(n, c, x1_), cx2 = multiply(n, c, x2_);
    const auto square = multiply(n, cx0, cx0);
    const double t1 = t1_ + trace(n, cx0);
    const double t2 = t2_ + 2 * trace(n, cx1) + trace(n, square);
    const double t3 = t3_ + 3 * trace(n, cx2) + 3 * trace_of_product(n, cx0, cx1) +
                      trace_of_product(n, square, cx0);
    double c3 = c3_;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) c3 += p_[i] * c[i * n + j] * p_[j];
    cumulants[0] = dd_ + t1;
    cumulants[1] = 2 * t2 + 4 * c2_;
    cumulants[2] = 8 * t3 + 24 * c3;
  }

 private:
  std::size_t k_;
  std::vector<double> p_, x0_, x1_, x2_, kappa_, qdd_;
  double t1_ = 0, t2_ = 0, t3_ = 0, dd_ = 0, c2_ = 0, c3_ = 0;
};

template <std::size_t K>
bool closed_form(const PressoData& data, double* estimate, double* leave_one_out, double* residuals,
                 double* p_values, double* centre, PressoSummary& summary) {
  const std::size_t j = data.snps, k = size_of<K>(data.exposures);
  // Associations over the standard errors of the outcome's, and the errors of the exposures'.
  std::vector<double> work(j * (3 * k + 3) + packed(k) * 2 + 3 * k);
  double* const a = work.data();
  double* const s2 = a + j * k;
  double* const q = s2 + j * k;
  double* const weight = q + j * k;
  double* const shift = weight + j;
  double* const variance = shift + j;
  double* const gram = variance + j;
  double* const noisy = gram + packed(k);
  double* const u = noisy + packed(k);
  double* const noise = u + k;
  double* const inverse = noise + k;

  std::fill(estimate, estimate + k, 0.0);
  for (std::size_t i = 0; i < j; ++i) {
    const double w = 1.0 / data.se_outcome[i], c = data.beta_outcome[i] * w;
    for (std::size_t r = 0; r < k; ++r) {
      a[i * k + r] = data.beta_exposure[i * k + r] * w;
      const double s = data.se_exposure[i * k + r] * w;
      s2[i * k + r] = s * s;
      noise[r] += s * s;
      estimate[r] += a[i * k + r] * c;
      for (std::size_t t = 0; t <= r; ++t) gram[packed(r) + t] += a[i * k + r] * a[i * k + t];
    }
  }
  std::copy(gram, gram + packed(k), noisy);
  for (std::size_t r = 0; r < k; ++r) noisy[packed(r) + r] += noise[r];
  if (!factor(k, gram) || !factor(k, noisy)) return false;
  forward<K>(k, gram, estimate);
  backward<K>(k, gram, estimate);

  summary.rss = 0;
  std::fill(centre, centre + k, 0.0);
  for (std::size_t i = 0; i < j; ++i) {
    const double* const ai = a + i * k;
    double e = data.beta_outcome[i] / data.se_outcome[i], h = 0, spread = 1, mean = 0;
    for (std::size_t r = 0; r < k; ++r) {
      e -= ai[r] * estimate[r];
      u[r] = ai[r];
    }
    forward<K>(k, gram, u);
    for (std::size_t r = 0; r < k; ++r) h += u[r] * u[r];
    if (!(1 - h > kSingular)) return false;
    const double f = e / (1 - h);
    backward<K>(k, gram, u);
    for (std::size_t r = 0; r < k; ++r) {
      const double without = estimate[r] - u[r] * f;
      leave_one_out[i * k + r] = without;
      spread += without * without * s2[i * k + r];
      mean += ai[r] * without;
    }
    summary.rss += f * f;
    residuals[i] = data.se_outcome[i] * f;
    p_values[i] = std::erfc(std::fabs(f) / std::sqrt(2 * spread));
    shift[i] = mean;
    for (std::size_t r = 0; r < k; ++r) centre[r] += ai[r] * mean;
  }
  forward<K>(k, noisy, centre);
  backward<K>(k, noisy, centre);

  // Diagonal of the inverse of the noisy cross products.
  for (std::size_t r = 0; r < k; ++r) {
    std::fill(u, u + k, 0.0);
    u[r] = 1;
    forward<K>(k, noisy, u);
    inverse[r] = 0;
    for (std::size_t t = r; t < k; ++t) inverse[r] += u[t] * u[t];
  }
  NullCumulants<K> cumulants(k);
  for (std::size_t i = 0; i < j; ++i) {
    double* const qi = q + i * k;
    double h = 0, v = 1;
    for (std::size_t r = 0; r < k; ++r) {
      qi[r] = a[i * k + r];
      shift[i] -= a[i * k + r] * centre[r];
      h += inverse[r] * s2[i * k + r];
      v += centre[r] * centre[r] * s2[i * k + r];
    }
    forward<K>(k, noisy, qi);
    for (std::size_t r = 0; r < k; ++r) h += qi[r] * qi[r];
    if (!(1 - h > kSingular)) return false;
    weight[i] = 1 / ((1 - h) * (1 - h));
    variance[i] = v;
    cumulants.add(qi, weight[i], v, shift[i]);
  }
  cumulants.begin_shift();
  for (std::size_t i = 0; i < j; ++i)
    cumulants.add_shift(q + i * k, weight[i], variance[i], shift[i]);
  cumulants.finish(summary.cumulants);
  return true;
}

// Eight draws side by side: associations over the standard errors of the outcome's, the fit to
// them, and its residuals.
struct Group {
  std::vector<Lanes> a;         // (J, K) exposures
  std::vector<Lanes> c;         // (J,) outcome
  std::vector<Lanes> gram;      // packed (K, K) cross products, then their factor
  std::vector<Lanes> estimate;  // (K,)
  std::vector<Lanes> normals;   // (J, K + 1 or K + 2)
  std::vector<Lanes> solved;    // (K,)
  std::vector<Lanes> square;    // (J,) squares of standardised residuals
};

struct Null {
  std::size_t snps, exposures;
  std::vector<double> mean;     // (J, K) of the exposures, over the outcome's errors
  std::vector<double> error;    // (J, K) standard errors, likewise
  std::vector<double> outcome;  // (J,) mean of the outcome, likewise
  Philox::Key key;

  // Means of the outcome are those of one row of estimates for each SNP, or of one for all.
  Null(const PressoData& data, const double* estimates, std::size_t stride, Philox::Key k)
      : snps(data.snps), exposures(data.exposures), key(k) {
    mean.resize(snps * exposures);
    error.resize(snps * exposures);
    outcome.assign(snps, 0.0);
    for (std::size_t i = 0; i < snps; ++i) {
      const double w = 1 / data.se_outcome[i];
      for (std::size_t r = 0; r < exposures; ++r) {
        const std::size_t at = i * exposures + r;
        mean[at] = data.beta_exposure[at] * w;
        error[at] = data.se_exposure[at] * w;
        outcome[i] += mean[at] * estimates[i * stride + r];
      }
    }
  }

  Group group() const {
    Group g;
    g.a.resize(snps * exposures);
    g.c.resize(snps);
    g.gram.resize(packed(exposures));
    g.estimate.resize(exposures);
    g.normals.resize(snps * 2 * (exposures / 2 + 1));
    g.solved.resize(exposures);
    g.square.resize(snps);
    return g;
  }
};

// Normals of the draws first, ..., first + 7: K + 1 of each SNP, K + 2 where K is even. On its own,
// so that the generator's loops turn into vector code whatever surrounds them.
MRFAST_DISPATCH void draw_normals(const Null& null, std::uint32_t first, std::uint32_t purpose,
                                  Lanes* z) {
  const std::size_t pairs = null.exposures / 2 + 1;
  for (std::size_t p = 0; p < pairs; ++p) {
    const NormalStream stream{null.key, 0, purpose + static_cast<std::uint32_t>(p)};
    for (std::size_t i = 0; i < null.snps; ++i) {
      Lanes* const to = z + 2 * (i * pairs + p);
      normal_pairs(stream, static_cast<std::uint32_t>(i), first, to[0].v, to[1].v);
    }
  }
}

// Fills data and cross products of the draws first, ..., first + 7.
template <std::size_t K>
MRFAST_INLINE void draw(const Null& null, std::uint64_t first, std::uint32_t purpose, Group& g) {
  const std::size_t k = size_of<K>(null.exposures);
  for (auto& sums : g.gram) sums = Lanes{};
  for (auto& sums : g.estimate) sums = Lanes{};
  draw_normals(null, static_cast<std::uint32_t>(first), purpose, g.normals.data());
  const std::size_t stride = 2 * (k / 2 + 1);
  for (std::size_t i = 0; i < null.snps; ++i) {
    const Lanes* const z = g.normals.data() + i * stride;
    Lanes* const a = g.a.data() + i * k;
    const double m = null.outcome[i];
    Lanes c;
    for (std::size_t l = 0; l < kLanes; ++l) c.v[l] = m + z[k].v[l];
    g.c[i] = c;
    for (std::size_t r = 0; r < k; ++r) {
      const double mean = null.mean[i * k + r], error = null.error[i * k + r];
      for (std::size_t l = 0; l < kLanes; ++l) {
        a[r].v[l] = mean + error * z[r].v[l];
        g.estimate[r].v[l] += a[r].v[l] * c.v[l];
      }
      for (std::size_t t = 0; t <= r; ++t)
        for (std::size_t l = 0; l < kLanes; ++l)
          g.gram[packed(r) + t].v[l] += a[r].v[l] * a[t].v[l];
    }
  }
}

template <std::size_t K>
MRFAST_INLINE void forward_lanes(std::size_t exposures, const Lanes* lower, Lanes* b) {
  const std::size_t k = size_of<K>(exposures);
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t t = 0; t < i; ++t)
      for (std::size_t l = 0; l < kLanes; ++l) b[i].v[l] -= lower[packed(i) + t].v[l] * b[t].v[l];
    for (std::size_t l = 0; l < kLanes; ++l) b[i].v[l] *= lower[packed(i) + i].v[l];
  }
}

template <std::size_t K>
MRFAST_INLINE void backward_lanes(std::size_t exposures, const Lanes* lower, Lanes* b) {
  const std::size_t k = size_of<K>(exposures);
  for (std::size_t i = k; i-- > 0;) {
    for (std::size_t t = i + 1; t < k; ++t)
      for (std::size_t l = 0; l < kLanes; ++l) b[i].v[l] -= lower[packed(t) + i].v[l] * b[t].v[l];
    for (std::size_t l = 0; l < kLanes; ++l) b[i].v[l] *= lower[packed(i) + i].v[l];
  }
}

// Factors the cross products, diagonals inverted, and solves for the estimates.
template <std::size_t K>
MRFAST_INLINE void fit(std::size_t exposures, Lanes* gram, Lanes* estimate) {
  const std::size_t k = size_of<K>(exposures);
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      Lanes& at = gram[packed(i) + j];
      for (std::size_t t = 0; t < j; ++t)
        for (std::size_t l = 0; l < kLanes; ++l)
          at.v[l] -= gram[packed(i) + t].v[l] * gram[packed(j) + t].v[l];
      for (std::size_t l = 0; l < kLanes; ++l)
        at.v[l] = i == j ? 1.0 / std::sqrt(at.v[l]) : at.v[l] * gram[packed(j) + j].v[l];
    }
  forward_lanes<K>(k, gram, estimate);
  backward_lanes<K>(k, gram, estimate);
}

// Residual of SNP i about the fit without it; `solved` is the inverse of the cross products times
// its exposures.
template <std::size_t K>
MRFAST_INLINE void leave_out(std::size_t exposures, const Group& g, std::size_t i, Lanes* solved,
                             Lanes& residual) {
  const std::size_t k = size_of<K>(exposures);
  const Lanes* const a = g.a.data() + i * k;
  Lanes e = g.c[i], h = {};
  for (std::size_t r = 0; r < k; ++r) {
    for (std::size_t l = 0; l < kLanes; ++l) e.v[l] -= a[r].v[l] * g.estimate[r].v[l];
    solved[r] = a[r];
  }
  forward_lanes<K>(k, g.gram.data(), solved);
  for (std::size_t r = 0; r < k; ++r)
    for (std::size_t l = 0; l < kLanes; ++l) h.v[l] += solved[r].v[l] * solved[r].v[l];
  for (std::size_t l = 0; l < kLanes; ++l) residual.v[l] = e.v[l] / (1.0 - h.v[l]);
}

// Sums of squares of eight draws; where thresholds are given, which SNPs' draws lie above theirs.
template <std::size_t K>
MRFAST_INLINE void global_group(const Null& null, std::uint64_t first, std::size_t valid,
                                const double* leave_one_out, const double* threshold, Group& g,
                                Lanes& rss, std::uint64_t* outliers) {
  const std::size_t k = size_of<K>(null.exposures);
  draw<K>(null, first, 0, g);
  fit<K>(k, g.gram.data(), g.estimate.data());
  rss = Lanes{};
  for (std::size_t i = 0; i < null.snps; ++i) {
    Lanes f;
    leave_out<K>(k, g, i, g.solved.data(), f);
    for (std::size_t l = 0; l < kLanes; ++l) rss.v[l] += f.v[l] * f.v[l];
  }
  if (outliers == nullptr) return;
  for (std::size_t i = 0; i < null.snps; ++i) {
    const Lanes* const a = g.a.data() + i * k;
    Lanes d = g.c[i];
    for (std::size_t r = 0; r < k; ++r)
      for (std::size_t l = 0; l < kLanes; ++l) d.v[l] -= a[r].v[l] * leave_one_out[i * k + r];
    std::uint64_t count = 0;
    for (std::size_t l = 0; l < valid; ++l) count += std::fabs(d.v[l]) > threshold[i] ? 1 : 0;
    outliers[i] += count;
  }
}

MRFAST_DISPATCH void global_group_one(const Null& null, std::uint64_t first, std::size_t valid,
                                      const double* leave_one_out, const double* threshold,
                                      Group& g, Lanes& rss, std::uint64_t* outliers) {
  global_group<1>(null, first, valid, leave_one_out, threshold, g, rss, outliers);
}

MRFAST_DISPATCH void global_group_many(const Null& null, std::uint64_t first, std::size_t valid,
                                       const double* leave_one_out, const double* threshold,
                                       Group& g, Lanes& rss, std::uint64_t* outliers) {
  global_group<0>(null, first, valid, leave_one_out, threshold, g, rss, outliers);
}

// Estimates of eight draws, and the squared standardised residuals of their SNPs.
template <std::size_t K>
MRFAST_INLINE void residual_group(const Null& null, std::uint64_t first, Group& g) {
  const std::size_t k = size_of<K>(null.exposures);
  draw<K>(null, first, kDistortion, g);
  fit<K>(k, g.gram.data(), g.estimate.data());
  Lanes* const solved = g.solved.data();
  for (std::size_t i = 0; i < null.snps; ++i) {
    Lanes f, spread;
    leave_out<K>(k, g, i, solved, f);
    backward_lanes<K>(k, g.gram.data(), solved);
    for (std::size_t l = 0; l < kLanes; ++l) spread.v[l] = 1.0;
    for (std::size_t r = 0; r < k; ++r) {
      const double error = null.error[i * k + r];
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double without = (g.estimate[r].v[l] - solved[r].v[l] * f.v[l]) * error;
        spread.v[l] += without * without;
      }
    }
    for (std::size_t l = 0; l < kLanes; ++l) g.square[i].v[l] = f.v[l] * f.v[l] / spread.v[l];
  }
}

MRFAST_DISPATCH void residual_group_one(const Null& null, std::uint64_t first, Group& g) {
  residual_group<1>(null, first, g);
}

MRFAST_DISPATCH void residual_group_many(const Null& null, std::uint64_t first, Group& g) {
  residual_group<0>(null, first, g);
}

// The `count` SNPs of the largest squares in one draw, the first of equal ones.
void select_largest(const Group& g, std::size_t lane, std::size_t count,
                    std::vector<std::pair<double, std::size_t>>& heap) {
  const auto before = [](const auto& x, const auto& y) {
    return x.first > y.first || (x.first == y.first && x.second < y.second);
  };
  heap.clear();
  for (std::size_t i = 0; i < g.square.size(); ++i) {
    const double square = g.square[i].v[lane];
    if (heap.size() < count) {
      heap.emplace_back(square, i);
      std::push_heap(heap.begin(), heap.end(), before);
    } else if (square > heap.front().first) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.back() = {square, i};
      std::push_heap(heap.begin(), heap.end(), before);
    }
  }
}

// Estimates of one draw without the SNPs in `kept_out`, from the data anew.
template <class Selection>
bool estimate_without(const Null& null, const Group& g, std::size_t lane, const Selection& out,
                      std::vector<char>& dropped, std::vector<double>& gram,
                      std::vector<double>& estimate) {
  const std::size_t k = null.exposures;
  std::fill(gram.begin(), gram.end(), 0.0);
  std::fill(estimate.begin(), estimate.end(), 0.0);
  for (const auto& entry : out) dropped[entry.second] = 1;
  for (std::size_t i = 0; i < null.snps; ++i) {
    if (dropped[i] != 0) continue;
    const Lanes* const a = g.a.data() + i * k;
    const double c = g.c[i].v[lane];
    for (std::size_t r = 0; r < k; ++r) {
      estimate[r] += a[r].v[lane] * c;
      for (std::size_t t = 0; t <= r; ++t) gram[packed(r) + t] += a[r].v[lane] * a[t].v[lane];
    }
  }
  for (const auto& entry : out) dropped[entry.second] = 0;
  if (!factor(k, gram.data())) return false;
  forward<0>(k, gram.data(), estimate.data());
  backward<0>(k, gram.data(), estimate.data());
  return true;
}

// Runs work(first draw, draws) over chunks of the draws; false where it was stopped.
template <class Work>
bool over_draws(const PressoDraws& draws, std::size_t threads, Monitor& monitor, const Work& work) {
  const std::uint64_t chunks = (draws.count + kChunk - 1) / kChunk;
  parallel_for(static_cast<std::size_t>(chunks), threads, monitor, [&](std::size_t chunk) {
    const std::uint64_t begin = chunk * kChunk;
    const std::uint64_t size = std::min(kChunk, draws.count - begin);
    work(draws.first + begin, size);
    monitor.step(size);
  });
  return !monitor.stopped();
}

}  // namespace

bool presso_closed_form(const PressoData& data, double* estimate, double* leave_one_out,
                        double* residuals, double* p_values, double* centre,
                        PressoSummary& summary) {
  if (data.exposures == 1)
    return closed_form<1>(data, estimate, leave_one_out, residuals, p_values, centre, summary);
  return closed_form<0>(data, estimate, leave_one_out, residuals, p_values, centre, summary);
}

bool presso_global_draws(const PressoData& data, const double* leave_one_out,
                         const double* residuals, double rss, const PressoDraws& draws,
                         std::size_t threads, Monitor& monitor, std::uint64_t& above,
                         std::uint64_t* outliers) {
  const Null null(data, leave_one_out, data.exposures, draws.key);
  std::vector<double> threshold(data.snps);
  for (std::size_t i = 0; i < data.snps; ++i)
    threshold[i] = std::fabs(residuals[i]) / data.se_outcome[i];
  const auto run = data.exposures == 1 ? &global_group_one : &global_group_many;
  std::mutex mutex;
  above = 0;
  if (outliers != nullptr) std::fill(outliers, outliers + data.snps, std::uint64_t{0});
  return over_draws(draws, threads, monitor, [&](std::uint64_t first, std::uint64_t count) {
    Group group = null.group();
    std::vector<std::uint64_t> local(outliers == nullptr ? 0 : data.snps, 0);
    std::uint64_t larger = 0;
    for (std::uint64_t b = 0; b < count; b += kLanes) {
      const auto valid = static_cast<std::size_t>(std::min<std::uint64_t>(kLanes, count - b));
      Lanes sums;
      run(null, first + b, valid, leave_one_out, threshold.data(), group, sums,
          outliers == nullptr ? nullptr : local.data());
      for (std::size_t l = 0; l < valid; ++l) larger += sums.v[l] > rss ? 1 : 0;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    above += larger;
    for (std::size_t i = 0; i < local.size(); ++i) outliers[i] += local[i];
  });
}

bool presso_distortion_draws(const PressoData& data, const double* estimate, std::size_t dropped,
                             const double* ratio, const double* difference,
                             const PressoDraws& draws, std::size_t threads, Monitor& monitor,
                             std::uint64_t* ratio_count, std::uint64_t* difference_count) {
  const Null null(data, estimate, 0, draws.key);
  const std::size_t k = data.exposures;
  const auto run = k == 1 ? &residual_group_one : &residual_group_many;
  std::mutex mutex;
  std::fill(ratio_count, ratio_count + k, std::uint64_t{0});
  std::fill(difference_count, difference_count + k, std::uint64_t{0});
  return over_draws(draws, threads, monitor, [&](std::uint64_t first, std::uint64_t count) {
    Group group = null.group();
    std::vector<std::pair<double, std::size_t>> heap;
    std::vector<char> out(data.snps, 0);
    std::vector<double> gram(packed(k)), without(k);
    std::vector<std::uint64_t> local(2 * k, 0);
    for (std::uint64_t b = 0; b < count; b += kLanes) {
      const auto valid = static_cast<std::size_t>(std::min<std::uint64_t>(kLanes, count - b));
      run(null, first + b, group);
      for (std::size_t l = 0; l < valid; ++l) {
        select_largest(group, l, dropped, heap);
        if (!estimate_without(null, group, l, heap, out, gram, without)) {
          for (auto& entry : local) ++entry;  // no estimate is as far away as one can be
          continue;
        }
        for (std::size_t r = 0; r < k; ++r) {
          const double change = std::fabs(group.estimate[r].v[l] - without[r]);
          local[r] += change >= ratio[r] * std::fabs(without[r]) ? 1 : 0;
          local[k + r] += change >= difference[r] ? 1 : 0;
        }
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (std::size_t r = 0; r < k; ++r) {
      ratio_count[r] += local[r];
      difference_count[r] += local[k + r];
    }
  });
}

}  // namespace mrfast
