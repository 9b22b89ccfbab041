#include <algorithm>
#include <cstdint>

#include "mrfast/median.hpp"
#include "mrfast/ratio_mode.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

WeightedRatios ratios_of(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                         const DoubleArray& sy, const DoubleArray& weights) {
  const auto n = static_cast<std::size_t>(bx.size());
  require_size("sx", sx, n);
  require_size("by", by, n);
  require_size("sy", sy, n);
  require_size("weights", weights, n);
  return {n, bx.data(), sx.data(), by.data(), sy.data(), weights.data()};
}

RatioSample sample_of(const DoubleArray& ratios, const DoubleArray& errors,
                      const DoubleArray& weights) {
  const auto n = static_cast<std::size_t>(ratios.size());
  if (n < 2) throw std::invalid_argument("ratios: expected at least 2");
  require_size("errors", errors, n);
  require_size("weights", weights, n);
  return {n, ratios.data(), errors.data(), weights.data()};
}

double median(const DoubleArray& values, const DoubleArray& weights) {
  require_size("weights", weights, static_cast<std::size_t>(values.size()));
  return weighted_median(values.data(), weights.data(), static_cast<std::size_t>(values.size()));
}

DoubleArray errors(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                   const DoubleArray& sy, const DoubleArray& weights, const DoubleArray& estimates,
                   const IndexArray& offsets) {
  const WeightedRatios all = ratios_of(bx, sx, by, sy, weights);
  const auto sets = static_cast<std::size_t>(estimates.size());
  require_size("offsets", offsets, sets + 1);
  DoubleArray out({static_cast<py::ssize_t>(sets), py::ssize_t{4}});
  double* row = out.mutable_data();
  const std::int64_t* const at = offsets.data();
  for (std::size_t s = 0; s < sets; ++s)
    if (at[s] < 0 || at[s + 1] < at[s] || static_cast<std::size_t>(at[s + 1]) > all.n)
      throw std::invalid_argument("offsets: expected to rise within the data");
  const double* const estimate = estimates.data();
  attended([&](Monitor& monitor) {
    for (std::size_t s = 0; s < sets && !monitor.step(); ++s, row += 4) {
      const auto from = static_cast<std::size_t>(at[s]),
                 n = static_cast<std::size_t>(at[s + 1]) - from;
      const MedianErrors found = median_errors(
          {n, all.bx + from, all.sx + from, all.by + from, all.sy + from, all.weights + from},
          estimate[s]);
      row[0] = found.halfwidth;
      row[1] = found.bahadur;
      row[2] = found.robust;
      row[3] = found.gap;
    }
  });
  return out;
}

DoubleArray quantiles(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                      const DoubleArray& sy, const DoubleArray& weights, double estimate,
                      const DoubleArray& scores) {
  const WeightedRatios data = ratios_of(bx, sx, by, sy, weights);
  DoubleArray out(scores.size());
  median_quantiles(data, estimate, scores.data(), static_cast<std::size_t>(scores.size()),
                   out.mutable_data());
  return out;
}

DoubleArray scores(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                   const DoubleArray& sy, const DoubleArray& weights, const DoubleArray& at) {
  const WeightedRatios data = ratios_of(bx, sx, by, sy, weights);
  DoubleArray out(at.size());
  median_scores(data, at.data(), static_cast<std::size_t>(at.size()), out.mutable_data());
  return out;
}

DoubleArray draw_medians(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                         const DoubleArray& sy, const DoubleArray& weights, double estimate,
                         double scale, std::size_t draws, std::uint64_t seed, std::uint32_t set,
                         std::uint32_t purpose, std::size_t threads) {
  const WeightedRatios data = ratios_of(bx, sx, by, sy, weights);
  require_draws("draws", draws);
  DoubleArray out(static_cast<py::ssize_t>(draws));
  double* const medians = out.mutable_data();
  attended([&](Monitor& monitor) {
    bootstrap_medians(data, {key_of(seed), set, purpose}, estimate, scale, draws, medians, threads,
                      monitor);
  });
  return out;
}

py::tuple draw_modes(const DoubleArray& ratios, const DoubleArray& standard_errors,
                     const DoubleArray& weights, double factor, bool exact, std::size_t draws,
                     std::uint64_t seed, std::uint32_t set, std::uint32_t purpose,
                     std::size_t threads) {
  const RatioSample data = sample_of(ratios, standard_errors, weights);
  require_draws("draws", draws);
  DoubleArray out(static_cast<py::ssize_t>(draws));
  double* const modes = out.mutable_data();
  double coarse = 0;
  attended([&](Monitor& monitor) {
    coarse = bootstrap_modes(data, {key_of(seed), set, purpose}, factor, exact, draws, modes,
                             threads, monitor);
  });
  return py::make_tuple(out, coarse);
}

py::tuple mode(const DoubleArray& ratios, const DoubleArray& standard_errors,
               const DoubleArray& weights, double factor, bool exact) {
  const RatioSample data = sample_of(ratios, standard_errors, weights);
  const ModeEstimate found = exact ? exact_mode(data, factor) : binned_mode(data, factor);
  return py::make_tuple(found.mode, found.bandwidth, mode_law_error(data, found));
}

DoubleArray sample_modes(const DoubleArray& samples, const DoubleArray& weights, double factor,
                         bool exact) {
  if (samples.ndim() != 2 || samples.shape(0) < 1 || samples.shape(1) < 2)
    throw std::invalid_argument("samples: expected a matrix of at least 1 x 2");
  const auto n = static_cast<std::size_t>(samples.shape(1));
  require_size("weights", weights, n);
  DoubleArray out(samples.shape(0));
  modes_of(samples.data(), weights.data(), static_cast<std::size_t>(samples.shape(0)), n, factor,
           exact, out.mutable_data());
  return out;
}

// Normals of one index: (2, draws).
DoubleArray normals(std::uint64_t seed, std::uint32_t set, std::uint32_t purpose,
                    std::uint32_t index, std::size_t draws) {
  require_draws("draws", draws);
  DoubleArray out({py::ssize_t{2}, static_cast<py::ssize_t>(draws)});
  double* const z = out.mutable_data();
  for (std::size_t d = 0; d < draws; d += kLanes) {
    double first[kLanes], second[kLanes];
    normal_pairs({key_of(seed), set, purpose}, index, static_cast<std::uint32_t>(d), first, second);
    const std::size_t count = std::min(kLanes, draws - d);
    std::copy(first, first + count, z + d);
    std::copy(second, second + count, z + draws + d);
  }
  return out;
}

RatioWeights weights_of(const std::string& name) {
  if (name == "first_order") return RatioWeights::kFirstOrder;
  if (name == "second_order") return RatioWeights::kSecondOrder;
  if (name == "simple") return RatioWeights::kSimple;
  throw std::invalid_argument("weights: expected first_order, second_order or simple");
}

template <class Real>
py::tuple matrix_of(const py::array_t<Real, py::array::c_style>& by,
                    const py::array_t<Real, py::array::c_style>& sy, const IndexArray& offsets,
                    const IndexArray& ids, const DoubleArray& bx, const DoubleArray& sx,
                    const std::string& weights, std::size_t minimum, std::size_t threads) {
  if (by.ndim() != 2) throw std::invalid_argument("by: expected a matrix");
  RatioPanel<Real> panel;
  panel.snps = static_cast<std::size_t>(by.shape(0));
  panel.outcomes = static_cast<std::size_t>(by.shape(1));
  if (sy.ndim() != 2 || sy.shape(0) != by.shape(0) || sy.shape(1) != by.shape(1))
    throw std::invalid_argument("sy: expected the shape of by");
  if (offsets.size() < 1) throw std::invalid_argument("offsets: expected at least one");
  panel.exposures = static_cast<std::size_t>(offsets.size()) - 1;
  const auto entries = static_cast<std::size_t>(ids.size());
  require_size("bx", bx, entries);
  require_size("sx", sx, entries);
  for (std::size_t e = 0; e < panel.exposures; ++e)
    if (offsets.data()[e] < 0 || offsets.data()[e + 1] < offsets.data()[e] ||
        static_cast<std::size_t>(offsets.data()[e + 1]) > entries)
      throw std::invalid_argument("offsets: expected to rise within ids");
  for (std::size_t i = 0; i < entries; ++i)
    if (ids.data()[i] < 0 || static_cast<std::size_t>(ids.data()[i]) >= panel.snps)
      throw std::invalid_argument("ids: expected rows of by");
  panel.by = by.data();
  panel.sy = sy.data();
  panel.offsets = offsets.data();
  panel.ids = ids.data();
  panel.bx = bx.data();
  panel.sx = sx.data();
  const RatioWeights kind = weights_of(weights);
  const auto rows = static_cast<py::ssize_t>(panel.exposures), columns = by.shape(1);
  DoubleArray estimates({rows, columns}), robust({rows, columns});
  py::array_t<std::int32_t> counts({rows, columns});
  double *const b = estimates.mutable_data(), *const se = robust.mutable_data();
  std::int32_t* const n = counts.mutable_data();
  attended(
      [&](Monitor& monitor) { median_matrix(panel, kind, minimum, b, se, n, threads, monitor); });
  return py::make_tuple(estimates, robust, counts);
}

py::tuple matrix(const py::array& by, const py::array& sy, const IndexArray& offsets,
                 const IndexArray& ids, const DoubleArray& bx, const DoubleArray& sx,
                 const std::string& weights, std::size_t minimum, std::size_t threads) {
  using FloatArray = py::array_t<float, py::array::c_style>;
  if (py::isinstance<DoubleArray>(by) && py::isinstance<DoubleArray>(sy))
    return matrix_of<double>(by.cast<DoubleArray>(), sy.cast<DoubleArray>(), offsets, ids, bx, sx,
                             weights, minimum, threads);
  if (py::isinstance<FloatArray>(by) && py::isinstance<FloatArray>(sy))
    return matrix_of<float>(by.cast<FloatArray>(), sy.cast<FloatArray>(), offsets, ids, bx, sx,
                            weights, minimum, threads);
  throw std::invalid_argument("by, sy: expected C-contiguous float64 or float32, both the same");
}

}  // namespace

void register_medians(py::module_ module) {
  const auto bx = py::arg("bx").noconvert(), sx = py::arg("sx").noconvert(),
             by = py::arg("by").noconvert(), sy = py::arg("sy").noconvert(),
             weights = py::arg("weights").noconvert();
  module.def("weighted_median", &median, py::arg("values").noconvert(), weights);
  module.def("median_errors", &errors, bx, sx, by, sy, weights, py::arg("estimates").noconvert(),
             py::arg("offsets").noconvert());
  module.def("median_quantiles", &quantiles, bx, sx, by, sy, weights, py::arg("estimate"),
             py::arg("scores").noconvert());
  module.def("median_scores", &scores, bx, sx, by, sy, weights, py::arg("at").noconvert());
  module.def("bootstrap_medians", &draw_medians, bx, sx, by, sy, weights, py::kw_only(),
             py::arg("estimate"), py::arg("scale"), py::arg("draws"), py::arg("seed"),
             py::arg("set"), py::arg("purpose"), py::arg("threads"));
  module.def("mode", &mode, py::arg("ratios").noconvert(), py::arg("errors").noconvert(), weights,
             py::kw_only(), py::arg("factor"), py::arg("exact"));
  module.def("bootstrap_modes", &draw_modes, py::arg("ratios").noconvert(),
             py::arg("errors").noconvert(), weights, py::kw_only(), py::arg("factor"),
             py::arg("exact"), py::arg("draws"), py::arg("seed"), py::arg("set"),
             py::arg("purpose"), py::arg("threads"));
  module.def("sample_modes", &sample_modes, py::arg("samples").noconvert(), weights, py::kw_only(),
             py::arg("factor"), py::arg("exact"));
  module.def("normals", &normals, py::kw_only(), py::arg("seed"), py::arg("set"),
             py::arg("purpose"), py::arg("index"), py::arg("draws"));
  module.def("median_matrix", &matrix, by, sy, py::kw_only(), py::arg("offsets").noconvert(),
             py::arg("ids").noconvert(), bx, sx, py::arg("weights"), py::arg("minimum"),
             py::arg("threads"));
}

}  // namespace mrfast::bindings
