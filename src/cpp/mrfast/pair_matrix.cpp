#include "mrfast/pair_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "mrfast/dispatch.hpp"
#include "mrfast/median.hpp"
#include "mrfast/tails.hpp"
#include "mrfast/vector_math.hpp"

namespace mrfast {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr std::size_t kTile = 64;       // exposures whose results stay in the second-level cache
constexpr std::size_t kSnpTile = 1024;  // SNPs packed at once
constexpr std::size_t kFewForMedian = 3;

// ------------------------------------------------------------------------ the panel

template <class Real>
struct Packed {
  std::vector<Real> data;
  bool missing = false;
  BadEntry bad;
};

// 1/se^2, beta/se^2 and beta^2/se^2 of one SNP; false where an entry is bad.
template <class Real>
bool pack_row(const double* beta, const double* se, std::size_t width, Real* to, bool& missing) {
  bool good = true, absent = false;
  for (std::size_t o = 0; o < width; ++o) {
    const double b = beta[o], s = se[o];
    const bool gone = b != b && s != s;
    const double inverse = gone ? 0.0 : 1 / s, z = gone ? 0.0 : b * inverse;
    const Real w = static_cast<Real>(inverse * inverse), p = static_cast<Real>(z * inverse),
               q = static_cast<Real>(z * z);
    to[o] = w;
    to[width + o] = p;
    to[2 * width + o] = q;
    good &= gone || (s > 0 && std::isfinite(w) && w > 0 && std::isfinite(p) && std::isfinite(q));
    absent |= gone;
  }
  missing |= absent;
  return good;
}

template <class Real>
Packed<Real> pack(const OutcomeBlock& block, std::size_t threads, Monitor& monitor) {
  Packed<Real> out;
  const std::size_t width = block.outcomes;
  out.data.resize(block.snps * 3 * width);
  std::mutex mutex;
  const std::size_t tiles = (block.snps + kSnpTile - 1) / kSnpTile;
  parallel_for(tiles, threads, monitor, [&](std::size_t t) {
    bool missing = false;
    const std::size_t end = std::min(block.snps, (t + 1) * kSnpTile);
    for (std::size_t j = t * kSnpTile; j < end; ++j) {
      const double *const b = block.beta + j * width, *const s = block.se + j * width;
      if (pack_row(b, s, width, out.data.data() + j * 3 * width, missing)) continue;
      std::size_t o = 0;
      Real entry[3];
      while (pack_row(b + o, s + o, 1, entry, missing)) ++o;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!out.bad.found || j < out.bad.snp) out.bad = {true, j, o};
      break;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    out.missing |= missing;
  });
  return out;
}

// ------------------------------------------------------------------------ leave one out

struct alignas(64) Range {
  double sxx[kWidest], sxy[kWidest], low[kWidest], high[kWidest];
};

// Smallest and largest of (sum of bx by w less that of one SNP) / (the same of bx^2 w).
template <class Real>
MRFAST_INLINE void leave_one_out(const Real* panel, std::size_t width, const std::int64_t* rows,
                                 const double* bx, std::size_t j, Range& range) {
  double *const sxx = range.sxx, *const sxy = range.sxy;
  double *const low = range.low, *const high = range.high;
  std::fill(sxx, sxx + width, 0.0);
  std::fill(sxy, sxy + width, 0.0);
  std::fill(low, low + width, kInf);
  std::fill(high, high + width, -kInf);
  for (std::size_t k = 0; k < j; ++k) {
    const Real *const w = panel + static_cast<std::size_t>(rows[k]) * 3 * width, *const p =
                                                                                     w + width;
    for (std::size_t o = 0; o < width; ++o) {
      sxx[o] += bx[k] * bx[k] * static_cast<double>(w[o]);
      sxy[o] += bx[k] * static_cast<double>(p[o]);
    }
  }
  for (std::size_t k = 0; k < j; ++k) {
    const Real *const w = panel + static_cast<std::size_t>(rows[k]) * 3 * width, *const p =
                                                                                     w + width;
    for (std::size_t o = 0; o < width; ++o) {
      const double a = static_cast<double>(w[o]);
      const double rest = sxx[o] - bx[k] * bx[k] * a;
      const double estimate = (sxy[o] - bx[k] * static_cast<double>(p[o])) / rest;
      const bool there = a > 0 && rest > 1e-12 * sxx[o];
      low[o] = there && estimate < low[o] ? estimate : low[o];
      high[o] = there && estimate > high[o] ? estimate : high[o];
    }
  }
}
MRFAST_DISPATCH void range_float(const float* panel, std::size_t width, const std::int64_t* rows,
                                 const double* bx, std::size_t j, Range& range) {
  leave_one_out(panel, width, rows, bx, j, range);
}
MRFAST_DISPATCH void range_double(const double* panel, std::size_t width, const std::int64_t* rows,
                                  const double* bx, std::size_t j, Range& range) {
  leave_one_out(panel, width, rows, bx, j, range);
}

// ------------------------------------------------------------------------ one tile

// Distance from zero, in standard errors, below which a normal p-value cannot be under `p`; those
// of Student's law are larger still.
double nearest(double p) {
  double low = 0, high = 40;
  for (int k = 0; k < 100; ++k) {
    const double middle = 0.5 * (low + high);
    (normal_p(middle) > p ? low : high) = middle;
  }
  return low * (1 - 1e-12);
}

// Weighted medians of one exposure with some outcomes.
struct Medians {
  std::vector<double> beta, se, estimate, error;
  std::vector<std::int64_t> ids;
  std::vector<std::int32_t> counts;

  void operator()(const OutcomeBlock& block, const std::int64_t* rows, const double* bx,
                  const double* sx, std::size_t j, const std::vector<std::size_t>& outcomes,
                  Monitor& monitor) {
    const std::size_t n = outcomes.size();
    beta.resize(j * n), se.resize(j * n), ids.resize(j);
    estimate.resize(n), error.resize(n), counts.resize(n);
    for (std::size_t k = 0; k < j; ++k) {
      const std::size_t from = static_cast<std::size_t>(rows[k]) * block.outcomes;
      ids[k] = static_cast<std::int64_t>(k);
      for (std::size_t i = 0; i < n; ++i) {
        beta[k * n + i] = block.beta[from + outcomes[i]];
        se[k * n + i] = block.se[from + outcomes[i]];
      }
    }
    const std::int64_t offsets[2] = {0, static_cast<std::int64_t>(j)};
    const RatioPanel<double> panel{j, n, 1, beta.data(), se.data(), offsets, ids.data(), bx, sx};
    median_matrix(panel, RatioWeights::kFirstOrder, kFewForMedian, estimate.data(), error.data(),
                  counts.data(), 1, monitor);
  }
};

template <class Real>
class Tile {
 public:
  Tile(const OutcomeBlock& block, const Packed<Real>& packed, const ExposureLists& lists,
       const PairPlan& plan, const Tails& tails, double far, Monitor& monitor)
      : block_(block),
        packed_(packed),
        lists_(lists),
        plan_(plan),
        tails_(tails),
        far_(far),
        monitor_(monitor),
        all_(plan.keep_p > 1) {}

  void operator()(std::size_t first, std::size_t last, KeptPairs& out) {
    const std::size_t width = block_.outcomes, plane = (last - first) * width;
    std::fill(std::begin(out.tested), std::end(out.tested), 0);
    std::vector<double> fits(kPairPlanes * plane);
    std::vector<std::int32_t> counts(packed_.missing ? plane : 0);
    const OutcomePanel<Real> panel{packed_.data.data(), block_.snps, width, width};
    const ExposureLists part{lists_.starts + first, lists_.rows, lists_.bx, last - first};
    fit_pairs(panel, part, fits.data(), packed_.missing ? counts.data() : nullptr, 1, monitor_);
    std::vector<std::int32_t> sizes(width);
    if (all_) {
      out.values.reserve(plane * pair_columns(plan_));
      for (auto* column : {&out.exposure, &out.outcome, &out.snps}) column->reserve(plane);
    }
    for (std::size_t e = first; e < last && !monitor_.stopped(); ++e) {
      for (std::size_t k = 0; k < kPairPlanes; ++k)
        at_[k] = fits.data() + k * plane + (e - first) * width;
      const auto j = lists_.starts[e + 1] - lists_.starts[e];
      if (packed_.missing)
        std::copy_n(counts.data() + (e - first) * width, width, sizes.data());
      else
        std::fill(sizes.begin(), sizes.end(), static_cast<std::int32_t>(j));
      exposure(e, sizes, out);
      monitor_.step();
    }
  }

 private:
  void exposure(std::size_t e, const std::vector<std::int32_t>& sizes, KeptPairs& out) {
    const std::size_t width = block_.outcomes;
    const auto start = static_cast<std::size_t>(lists_.starts[e]);
    const auto j = static_cast<std::size_t>(lists_.starts[e + 1]) - start;
    const std::int64_t* const rows = lists_.rows + start;
    const double* const bx = lists_.bx + start;
    for (std::size_t o = 0; o < width; ++o) {
      out.tested[0] += at_[kIvwError][o] > 0;
      out.tested[1] += at_[kEggerError][o] > 0;
      out.tested[2] += sizes[o] >= static_cast<std::int32_t>(kFewForMedian);
      out.tested[3] += sizes[o] == 1;
    }
    const bool median = (plan_.methods & kPairMedian) != 0;
    const bool median_decides = median && (plan_.deciding & kPairMedian) != 0;
    chosen_.clear();
    for (std::size_t o = 0; o < width; ++o)
      if (all_ || median_decides || significant(o, sizes[o])) chosen_.push_back(o);
    if (chosen_.empty()) return;
    if (median) medians_(block_, rows, bx, plan_.sx + start, j, chosen_, monitor_);
    if (monitor_.stopped()) return;
    bool ranged = false;
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      const std::size_t o = chosen_[i];
      if (!all_ && median_decides && !(median_p(i) < plan_.keep_p) && !significant(o, sizes[o]))
        continue;
      if (plan_.leave_one_out && !ranged) {
        if constexpr (sizeof(Real) == sizeof(float))
          range_float(packed_.data.data(), width, rows, bx, j, range_);
        else
          range_double(packed_.data.data(), width, rows, bx, j, range_);
        ranged = true;
      }
      out.exposure.push_back(static_cast<std::int32_t>(e));
      out.outcome.push_back(static_cast<std::int32_t>(o));
      out.snps.push_back(sizes[o]);
      write(o, i, static_cast<std::size_t>(sizes[o]), out.values);
    }
  }

  double ivw_p(std::size_t o) const { return p_of(at_[kIvw][o], at_[kIvwError][o]); }
  static double p_of(double estimate, double error) {
    return error > 0 ? normal_p(estimate / error) : kNaN;
  }
  double median_p(std::size_t i) const { return p_of(medians_.estimate[i], medians_.error[i]); }
  double student_p(std::size_t plane, std::size_t error, std::size_t o, std::size_t n) const {
    const double se = at_[error][o];
    return n > 2 && se > 0 ? tails_.student(at_[plane][o] / se, n - 2) : kNaN;
  }

  // By what is known without the median.
  bool significant(std::size_t o, std::int32_t n) const {
    const auto beyond = [&](std::size_t estimate, std::size_t error) {
      return std::fabs(at_[estimate][o]) >= far_ * at_[error][o];
    };
    const bool one =
        (plan_.deciding & kPairIvw) != 0 || ((plan_.deciding & kPairWald) != 0 && n == 1);
    if (one && beyond(kIvw, kIvwError) && ivw_p(o) < plan_.keep_p) return true;
    return (plan_.deciding & kPairEgger) != 0 && beyond(kEgger, kEggerError) &&
           student_p(kEgger, kEggerError, o, static_cast<std::size_t>(n)) < plan_.keep_p;
  }

  void write(std::size_t o, std::size_t i, std::size_t n, std::vector<double>& to) const {
    const auto put = [&](auto... values) { (to.push_back(values), ...); };
    if (plan_.methods & kPairIvw) {
      const double q = at_[kIvwQ][o];
      put(at_[kIvw][o], at_[kIvwError][o], ivw_p(o), q, n > 1 ? tails_.chi_square(q, n - 1) : kNaN);
      if (plan_.leave_one_out) {
        const bool there = range_.low[o] <= range_.high[o];
        put(there ? range_.low[o] : kNaN, there ? range_.high[o] : kNaN);
      }
    }
    if (plan_.methods & kPairEgger) {
      const double q = at_[kEggerQ][o];
      put(at_[kEgger][o], at_[kEggerError][o], student_p(kEgger, kEggerError, o, n),
          at_[kIntercept][o], at_[kInterceptError][o], student_p(kIntercept, kInterceptError, o, n),
          q, n > 2 ? tails_.chi_square(q, n - 2) : kNaN);
    }
    if (plan_.methods & kPairMedian) put(medians_.estimate[i], medians_.error[i], median_p(i));
    if (plan_.methods & kPairWald) {
      const bool one = n == 1;
      put(one ? at_[kIvw][o] : kNaN, one ? at_[kIvwError][o] : kNaN, one ? ivw_p(o) : kNaN);
    }
  }

  const OutcomeBlock& block_;
  const Packed<Real>& packed_;
  const ExposureLists& lists_;
  const PairPlan& plan_;
  const Tails& tails_;
  double far_;
  Monitor& monitor_;
  bool all_;
  const double* at_[kPairPlanes] = {};
  std::vector<std::size_t> chosen_;
  Medians medians_;
  Range range_;
};

template <class Real>
BadEntry run(const OutcomeBlock& block, const ExposureLists& lists, const PairPlan& plan,
             std::vector<KeptPairs>& parts, std::size_t threads, Monitor& monitor) {
  const Packed<Real> packed = pack<Real>(block, threads, monitor);
  if (packed.bad.found) return packed.bad;
  std::size_t most = 1;
  for (std::size_t e = 0; e < lists.exposures; ++e)
    most = std::max(most, static_cast<std::size_t>(lists.starts[e + 1] - lists.starts[e]));
  const Tails tails(most);
  const double far = plan.keep_p > 1 ? 0.0 : nearest(plan.keep_p);
  parts.resize((lists.exposures + kTile - 1) / kTile);
  parallel_for(parts.size(), threads, monitor, [&](std::size_t t) {
    Tile<Real> tile(block, packed, lists, plan, tails, far, monitor);
    tile(t * kTile, std::min(lists.exposures, (t + 1) * kTile), parts[t]);
  });
  return {};
}

}  // namespace

std::size_t pair_columns(const PairPlan& plan) {
  std::size_t columns = 0;
  if (plan.methods & kPairIvw) columns += plan.leave_one_out ? 7 : 5;
  if (plan.methods & kPairEgger) columns += 8;
  if (plan.methods & kPairMedian) columns += 3;
  if (plan.methods & kPairWald) columns += 3;
  return columns;
}

BadEntry pair_matrix(const OutcomeBlock& block, const ExposureLists& lists, const PairPlan& plan,
                     std::vector<KeptPairs>& parts, std::size_t threads, Monitor& monitor) {
  return plan.single ? run<float>(block, lists, plan, parts, threads, monitor)
                     : run<double>(block, lists, plan, parts, threads, monitor);
}

}  // namespace mrfast
