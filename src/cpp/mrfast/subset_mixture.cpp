#include "mrfast/subset_mixture.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "mrfast/inclusion.hpp"

namespace mrfast {

namespace {

constexpr double kLeftOut = 16;      // all sets left out together weigh e^-16 of the best at most
constexpr std::size_t kMerged = 12;  // SNPs beyond which sets are merged
constexpr int kVarianceBits = 45;    // dropped of a variance: 1/128 at most between merged sets
constexpr int kPlaceBits = 44;       // of a key, beside 19 of the variance
constexpr double kMeanStep = 0.25;   // standard deviations, between merged sets
constexpr std::uint64_t kBetweenPolls = 1u << 16;

struct Moments {
  double weight = 0, offset = 0, square = 0, variance = 0, origin = 0;
};

// Depth first over the SNPs, in or out; a branch ends where even its best set weighs nothing.
class Search {
 public:
  Search(std::size_t n, const double* ratios, const double* errors, double prior,
         std::size_t smallest, double centre, double cutoff, double scale, Monitor& monitor)
      : n_(n), smallest_(smallest), cutoff_(cutoff), scale_(scale), monitor_(monitor) {
    std::array<std::size_t, kMostSubsetSnps> order{};
    std::iota(order.begin(), order.begin() + n, std::size_t{0});
    std::sort(order.begin(), order.begin() + n, [&](std::size_t a, std::size_t b) {
      return errors[a] != errors[b] ? errors[a] < errors[b] : a < b;
    });
    excluded_ = std::log1p(-prior);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t j = order[i];
      precision_[i] = 1 / (errors[j] * errors[j]);
      ratio_[i] = ratios[j] - centre;
      included_[i] = std::log(prior) - std::log(errors[j]);
    }
    for (std::size_t i = n; i-- > 0;) rest_[i] = rest_[i + 1] + std::max(included_[i], excluded_);
  }

  void run() { descend(0, 0, 0, 0, 0, 0, 0); }

  double best = -std::numeric_limits<double>::infinity();
  std::uint64_t models = 0;

  std::vector<NormalPart> parts(double centre) {
    for (const auto& [key, sums] : merged_) {
      const double shift = sums.offset / sums.weight;
      parts_.push_back(
          {sums.weight, sums.origin + shift,
           sums.variance / sums.weight + std::max(0.0, sums.square / sums.weight - shift * shift)});
    }
    for (NormalPart& part : parts_) part.mean += centre;
    std::sort(parts_.begin(), parts_.end(), [](const NormalPart& a, const NormalPart& b) {
      if (a.mean != b.mean) return a.mean < b.mean;
      return a.variance != b.variance ? a.variance < b.variance : a.weight < b.weight;
    });
    return std::move(parts_);
  }

 private:
  void descend(std::size_t i, std::size_t valid, double a, double b, double c, double q,
               double log_weight) {
    if (log_weight + rest_[i] - q / 2 < cutoff_) return;
    if (++visited_ % kBetweenPolls == 0 && monitor_.step(kBetweenPolls)) return;
    if (monitor_.stopped()) return;
    if (i == n_) {
      if (valid >= smallest_) add(valid, a, b, q, log_weight - q / 2);
      return;
    }
    const double p = precision_[i], r = ratio_[i];
    const double a1 = a + p, b1 = b + p * r, c1 = c + p * r * r;
    descend(i + 1, valid + 1, a1, b1, c1, std::max(0.0, c1 - b1 * b1 / a1),
            log_weight + included_[i]);
    descend(i + 1, valid, a, b, c, q, log_weight + excluded_);
  }

  void add(std::size_t valid, double a, double b, double q, double log_weight) {
    ++models;
    best = std::max(best, log_weight);
    const double weight = std::exp(log_weight - scale_), mean = b / a;
    if (weight == 0) return;
    const double spread = valid > 1 ? q / static_cast<double>(valid - 1) : 0.0;
    const double variance = std::max(1.0, spread) / a;
    if (n_ <= kMerged) {
      parts_.push_back({weight, mean, variance});
      return;
    }
    const std::uint64_t level = std::bit_cast<std::uint64_t>(variance) >> kVarianceBits;
    const double width = kMeanStep * std::sqrt(std::bit_cast<double>(level << kVarianceBits));
    const double cell = std::floor(mean / width);
    const auto place = static_cast<std::uint64_t>(static_cast<std::int64_t>(cell));
    const std::uint64_t key =
        (level << kPlaceBits) ^ (place & ((std::uint64_t{1} << kPlaceBits) - 1));
    Moments& sums = merged_[key];
    sums.origin = cell * width;
    const double offset = mean - sums.origin;
    sums.weight += weight;
    sums.offset += weight * offset;
    sums.square += weight * offset * offset;
    sums.variance += weight * variance;
  }

  std::size_t n_, smallest_;
  double cutoff_, scale_, excluded_ = 0;
  Monitor& monitor_;
  std::array<double, kMostSubsetSnps> precision_{}, ratio_{}, included_{};
  std::array<double, kMostSubsetSnps + 1> rest_{};
  std::uint64_t visited_ = 0;
  std::vector<NormalPart> parts_;
  std::unordered_map<std::uint64_t, Moments> merged_;
};

// Log weight of the best set of `smallest` SNPs (one or two), over that of the empty set.
double best_small_gain(std::size_t n, const double* ratios, const double* errors,
                       const std::vector<double>& gains, std::size_t smallest) {
  double best = -std::numeric_limits<double>::infinity();
  for (std::size_t j = 0; j < n; ++j) {
    if (smallest < 2) best = std::max(best, gains[j]);
    for (std::size_t i = 0; i < j; ++i) {
      const double z = (ratios[i] - ratios[j]) / std::hypot(errors[i], errors[j]);
      best = std::max(best, gains[i] + gains[j] - z * z / 2);
    }
  }
  return best;
}

}  // namespace

bool subset_mixture(std::size_t n, const double* ratios, const double* errors, double prior,
                    std::size_t smallest, Monitor& monitor, SubsetMixture& out) {
  const double excluded = std::log1p(-prior);
  std::vector<double> gains(n);
  for (std::size_t j = 0; j < n; ++j) gains[j] = std::log(prior) - std::log(errors[j]) - excluded;
  const double below = kLeftOut + static_cast<double>(n) * std::log(2.0);
  const GainMaximum top = largest_gain({n, ratios, errors, gains.data()});
  const double centre = std::isnan(top.at) ? ratios[0] : top.at;
  // The best set of any size; where it is smaller than allowed, the bound comes down to the best
  // one that is not. A search that ends with nothing starts again from one of the smallest sets.
  double bound = static_cast<double>(n) * excluded + top.value, slack = 0;
  for (bool lowered = false;;) {
    Search search(n, ratios, errors, prior, smallest, centre, bound - below - slack, bound,
                  monitor);
    search.run();
    if (monitor.stopped()) return false;
    if (std::abs(search.best - bound) <= 1) {
      out.log_scale = bound;
      out.models = search.models;
      out.parts = search.parts(centre);
      return true;
    }
    if (std::isfinite(search.best)) {
      bound = search.best;
    } else if (!lowered) {
      bound =
          static_cast<double>(n) * excluded + best_small_gain(n, ratios, errors, gains, smallest);
      lowered = true;
    } else {
      slack = std::max({1.0, 2 * slack, 1e-15 * std::abs(bound)});  // what rounding cut off
    }
  }
}

}  // namespace mrfast
