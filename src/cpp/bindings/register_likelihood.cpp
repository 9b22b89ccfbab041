#include <cstdint>
#include <string>

#include "mrfast/ratio_profile.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

RatioData data_of(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                  const DoubleArray& sy, double overlap) {
  const auto n = static_cast<std::size_t>(bx.size());
  if (n < 1) throw std::invalid_argument("bx: expected at least one element");
  require_size("sx", sx, n);
  require_size("by", by, n);
  require_size("sy", sy, n);
  return {n, bx.data(), sx.data(), by.data(), sy.data(), overlap};
}

LossForm loss_of(const std::string& name, double constant) {
  if (name == "l2") return {Loss::kSquare, 0};
  if (!(constant > 0)) throw std::invalid_argument("constant: expected a number above 0");
  if (name == "huber") return {Loss::kHuber, constant};
  if (name == "tukey") return {Loss::kTukey, constant};
  throw std::invalid_argument("loss: expected l2, huber or tukey");
}

py::tuple profile(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                  const DoubleArray& sy, double overlap, double tau2, const std::string& loss,
                  double constant, double rise) {
  const RatioData data = data_of(bx, sx, by, sy, overlap);
  const LossForm form = loss_of(loss, constant);
  double theta = 0, value = 0;
  std::vector<StationaryPoint> minima;
  LevelSet set{false, {}};
  {
    const py::gil_scoped_release release;
    const auto points = stationary_points(data, form, tau2);
    const StationaryPoint& best = points[lowest(points)];
    theta = best.theta;
    value = best.value;
    for (const auto& point : points)
      if (point.minimum) minima.push_back(point);
    if (rise > 0) set = level_set(data, form, tau2, points, value + rise);
  }
  DoubleArray pieces({static_cast<py::ssize_t>(set.pieces.size()), py::ssize_t{2}});
  double* out = pieces.mutable_data();
  for (const auto& [lower, upper] : set.pieces) {
    *out++ = lower;
    *out++ = upper;
  }
  DoubleArray lows({static_cast<py::ssize_t>(minima.size()), py::ssize_t{2}});
  out = lows.mutable_data();
  for (const auto& point : minima) {
    *out++ = point.theta;
    *out++ = point.value;
  }
  return py::make_tuple(theta, value, lows, pieces);
}

py::list dispersed(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                   const DoubleArray& sy, const std::string& loss, double constant, double delta) {
  const RatioData data = data_of(bx, sx, by, sy, 0);
  const LossForm form = loss_of(loss, constant);
  std::vector<DispersedRoot> roots;
  attended([&](Monitor& monitor) { roots = dispersed_roots(data, form, delta, monitor); });
  py::list out;
  for (const auto& root : roots)
    out.append(py::make_tuple(root.tau2, root.theta, root.lower, root.upper, root.jump));
  return out;
}

DoubleArray draws_of(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& mean,
                     const DoubleArray& error, const DoubleArray& sy, std::size_t draws,
                     std::uint64_t seed, std::uint32_t purpose, std::size_t threads) {
  const RatioData data = data_of(bx, sx, mean, sy, 0);
  require_size("error", error, data.snps);
  require_draws("draws", draws);
  const NormalStream stream{key_of(seed), 0, purpose};
  DoubleArray out({static_cast<py::ssize_t>(draws), static_cast<py::ssize_t>(kRatioSums)});
  double* const rows = out.mutable_data();
  const double* const centre = mean.data();
  const double* const spread = error.data();
  attended([&](Monitor& monitor) {
    ratio_sum_draws(data, centre, spread, stream, draws, rows, threads, monitor);
  });
  return out;
}

}  // namespace

void register_likelihood(py::module_ module) {
  module.doc() = "Profile likelihoods of a ratio, robust forms, sums of draws.";
  const auto bx = py::arg("bx").noconvert(), sx = py::arg("sx").noconvert(),
             by = py::arg("by").noconvert(), sy = py::arg("sy").noconvert();
  module.def("profile", &profile, bx, sx, by, sy, py::kw_only(), py::arg("overlap"),
             py::arg("tau2"), py::arg("loss"), py::arg("constant"), py::arg("rise"));
  module.def("dispersed_roots", &dispersed, bx, sx, by, sy, py::kw_only(), py::arg("loss"),
             py::arg("constant"), py::arg("delta"));
  module.def("ratio_sum_draws", &draws_of, bx, sx, py::kw_only(), py::arg("mean").noconvert(),
             py::arg("error").noconvert(), py::arg("sy").noconvert(), py::arg("draws"),
             py::arg("seed"), py::arg("purpose"), py::arg("threads"));
}

}  // namespace mrfast::bindings
