#include "mrfast/inclusion.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mrfast/small.hpp"

namespace mrfast {

namespace {

constexpr int kPolish = 20;          // steps of the maximum towards its own vertex
constexpr double kTouching = 1e-12;  // relative distance of intervals that are one

struct Edge {
  double at;
  std::size_t snp;
  bool enters;
};

double radius(const SnpGains& data, std::size_t j) {
  return data.gains[j] > 0 ? data.errors[j] * std::sqrt(2 * data.gains[j]) : 0.0;
}

// Between two edges the valid SNPs stay the same, and the sum is peak - curvature (x - vertex)^2/2.
struct Piece {
  double lower, upper;  // these and the vertex are about the centre
  std::size_t valid;
  double curvature, vertex, peak;
};

template <class Visit>
void each_piece(const SnpGains& data, double centre, const Visit& visit) {
  std::vector<Edge> edges;
  edges.reserve(2 * data.n);
  for (std::size_t j = 0; j < data.n; ++j) {
    const double reach = radius(data, j), r = data.ratios[j] - centre;
    if (!(reach > 0)) continue;
    edges.push_back({r - reach, j, true});
    edges.push_back({r + reach, j, false});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) {
    if (a.at != b.at) return a.at < b.at;
    return a.snp != b.snp ? a.snp < b.snp : a.enters && !b.enters;
  });
  constexpr double infinity = std::numeric_limits<double>::infinity();
  ExactSum a, b, c;
  std::size_t valid = 0;
  double lower = -infinity;
  for (std::size_t e = 0; e <= edges.size(); ++e) {
    const double upper = e < edges.size() ? edges[e].at : infinity;
    if (upper > lower) {
      Piece piece{lower, upper, valid, 0, 0, 0};
      if (valid) {
        piece.curvature = a.value();
        piece.vertex = b.value() / piece.curvature;
        piece.peak = c.value() + b.value() * piece.vertex / 2;
      }
      visit(piece);
    }
    if (e == edges.size()) break;
    lower = upper;
    const std::size_t j = edges[e].snp;
    const double sign = edges[e].enters ? 1 : -1, r = data.ratios[j] - centre;
    const double precision = 1 / (data.errors[j] * data.errors[j]);
    valid = edges[e].enters ? valid + 1 : valid - 1;
    if (valid == 0) {
      a = b = c = {};
    } else {
      a.add(sign * precision);
      b.add(sign * r * precision);
      c.add(sign * (data.gains[j] - r * r * precision / 2));
    }
  }
}

double gain_at(const SnpGains& data, double x) {
  ExactSum sum;
  for (std::size_t j = 0; j < data.n; ++j) {
    const double z = (x - data.ratios[j]) / data.errors[j];
    sum.add(std::max(data.gains[j] - z * z / 2, 0.0));
  }
  return sum.value();
}

}  // namespace

GainMaximum largest_gain(const SnpGains& data) {
  GainMaximum best{std::numeric_limits<double>::quiet_NaN(), 0};
  each_piece(data, 0.0, [&](const Piece& piece) {
    if (!piece.valid) return;
    const double x = std::clamp(piece.vertex, piece.lower, piece.upper), d = x - piece.vertex;
    const double value = piece.peak - piece.curvature * d * d / 2;
    if (std::isnan(best.at) || value > best.value) best = {x, value};
  });
  if (std::isnan(best.at)) return best;
  best.value = gain_at(data, best.at);
  // The sums of the sweep have rounding errors; those of the best piece are taken afresh.
  for (int step = 0; step < kPolish; ++step) {
    ExactSum a, b;
    for (std::size_t j = 0; j < data.n; ++j) {
      const double r = data.ratios[j] - best.at;
      if (!(std::fabs(r) < radius(data, j))) continue;
      const double precision = 1 / (data.errors[j] * data.errors[j]);
      a.add(precision);
      b.add(r * precision);
    }
    if (!(a.value() > 0)) break;
    const double at = best.at + b.value() / a.value(), value = gain_at(data, at);
    if (at == best.at || value < best.value) break;
    best = {at, value};
  }
  return best;
}

std::vector<double> gain_level_set(const SnpGains& data, double level, double centre) {
  std::vector<double> ends;
  const auto add = [&](double lower, double upper) {
    if (!ends.empty() && lower - ends.back() <= kTouching * (std::fabs(lower) + std::fabs(upper)))
      ends.back() = upper;
    else
      ends.insert(ends.end(), {lower, upper});
  };
  each_piece(data, centre, [&](const Piece& piece) {
    if (!piece.valid) {
      if (level <= 0) add(piece.lower, piece.upper);
      return;
    }
    const double room = piece.peak - level;
    if (!(room >= 0)) return;
    const double reach = std::sqrt(2 * room / piece.curvature);
    const double lower = std::max(piece.lower, piece.vertex - reach);
    const double upper = std::min(piece.upper, piece.vertex + reach);
    if (lower <= upper) add(lower, upper);
  });
  for (double& end : ends) end += centre;
  return ends;
}

}  // namespace mrfast
