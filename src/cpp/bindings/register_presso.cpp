#include <cstdint>
#include <limits>

#include "mrfast/presso.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

PressoData make_data(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                     const DoubleArray& beta_outcome, const DoubleArray& se_outcome) {
  if (beta_exposure.ndim() != 2 || beta_exposure.shape(1) < 1)
    throw std::invalid_argument("beta_exposure: expected a matrix, one column an exposure");
  const auto j = static_cast<std::size_t>(beta_exposure.shape(0));
  const auto k = static_cast<std::size_t>(beta_exposure.shape(1));
  require_size("se_exposure", se_exposure, j * k);
  require_size("beta_outcome", beta_outcome, j);
  require_size("se_outcome", se_outcome, j);
  return {j, k, beta_exposure.data(), se_exposure.data(), beta_outcome.data(), se_outcome.data()};
}

DoubleArray filled(std::vector<py::ssize_t> shape) {
  DoubleArray out(std::move(shape));
  std::fill(out.mutable_data(), out.mutable_data() + out.size(),
            std::numeric_limits<double>::quiet_NaN());
  return out;
}

py::tuple closed_form(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                      const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                      const IndexArray& offsets, std::size_t threads) {
  const PressoData all = make_data(beta_exposure, se_exposure, beta_outcome, se_outcome);
  if (offsets.size() < 1) throw std::invalid_argument("offsets: expected at least one number");
  const std::int64_t* const from = offsets.data();
  const auto sets = static_cast<std::size_t>(offsets.size() - 1);
  if (from[0] != 0 || from[sets] != static_cast<std::int64_t>(all.snps))
    throw std::invalid_argument("offsets: expected 0 first and the number of SNPs last");
  for (std::size_t s = 0; s < sets; ++s)
    if (from[s + 1] < from[s]) throw std::invalid_argument("offsets: expected ascending numbers");
  const auto j = static_cast<py::ssize_t>(all.snps), k = static_cast<py::ssize_t>(all.exposures);
  const auto m = static_cast<py::ssize_t>(sets);
  DoubleArray estimate = filled({m, k}), centre = filled({m, k}), summary = filled({m, 4});
  DoubleArray leave_one_out = filled({j, k}), residuals = filled({j}), p_values = filled({j});
  double* const e = estimate.mutable_data();
  double* const c = centre.mutable_data();
  double* const t = summary.mutable_data();
  double* const l = leave_one_out.mutable_data();
  double* const r = residuals.mutable_data();
  double* const p = p_values.mutable_data();
  constexpr std::size_t kSets = 64;  // data sets that a thread takes at once
  attended([&](Monitor& monitor) {
    parallel_for((sets + kSets - 1) / kSets, threads, monitor, [&](std::size_t chunk) {
      const std::size_t end = sets < (chunk + 1) * kSets ? sets : (chunk + 1) * kSets;
      for (std::size_t s = chunk * kSets; s < end; ++s) {
        const auto first = static_cast<std::size_t>(from[s]);
        const std::size_t width = all.exposures;
        const PressoData data{static_cast<std::size_t>(from[s + 1]) - first,
                              width,
                              all.beta_exposure + first * width,
                              all.se_exposure + first * width,
                              all.beta_outcome + first,
                              all.se_outcome + first};
        PressoSummary sums;
        if (presso_closed_form(data, e + s * width, l + first * width, r + first, p + first,
                               c + s * width, sums)) {
          t[4 * s] = sums.rss;
          for (std::size_t i = 0; i < 3; ++i) t[4 * s + 1 + i] = sums.cumulants[i];
        }
      }
      monitor.step(end - chunk * kSets);
    });
  });
  return py::make_tuple(estimate, leave_one_out, residuals, p_values, centre, summary);
}

py::tuple global_draws(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                       const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                       const DoubleArray& leave_one_out, const DoubleArray& residuals, double rss,
                       bool outliers, std::uint64_t seed, std::uint64_t first, std::uint64_t count,
                       std::size_t threads) {
  const PressoData data = make_data(beta_exposure, se_exposure, beta_outcome, se_outcome);
  require_size("leave_one_out", leave_one_out, data.snps * data.exposures);
  require_size("residuals", residuals, data.snps);
  const double* const without = leave_one_out.data();
  const double* const about = residuals.data();
  std::uint64_t above = 0;
  std::vector<std::uint64_t> larger(outliers ? data.snps : 0);
  attended([&](Monitor& monitor) {
    presso_global_draws(data, without, about, rss, {key_of(seed), first, count}, threads, monitor,
                        above, outliers ? larger.data() : nullptr);
  });
  return py::make_tuple(above, larger);
}

py::tuple distortion_draws(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                           const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                           const DoubleArray& estimate, std::size_t dropped,
                           const DoubleArray& ratio, const DoubleArray& difference,
                           std::uint64_t seed, std::uint64_t first, std::uint64_t count,
                           std::size_t threads) {
  const PressoData data = make_data(beta_exposure, se_exposure, beta_outcome, se_outcome);
  require_size("estimate", estimate, data.exposures);
  require_size("ratio", ratio, data.exposures);
  require_size("difference", difference, data.exposures);
  if (dropped + data.exposures > data.snps)
    throw std::invalid_argument("dropped: expected as many SNPs as exposures to be left");
  const double* const centre = estimate.data();
  const double* const relative = ratio.data();
  const double* const plain = difference.data();
  std::vector<std::uint64_t> ratios(data.exposures), differences(data.exposures);
  attended([&](Monitor& monitor) {
    presso_distortion_draws(data, centre, dropped, relative, plain, {key_of(seed), first, count},
                            threads, monitor, ratios.data(), differences.data());
  });
  return py::make_tuple(ratios, differences);
}

}  // namespace

void register_presso(py::module_ module) {
  module.doc() = "MR-PRESSO: closed forms and draws.";
  module.def("closed_form", &closed_form, py::kw_only(), py::arg("beta_exposure").noconvert(),
             py::arg("se_exposure").noconvert(), py::arg("beta_outcome").noconvert(),
             py::arg("se_outcome").noconvert(), py::arg("offsets").noconvert(), py::arg("threads"));
  module.def("global_draws", &global_draws, py::kw_only(), py::arg("beta_exposure").noconvert(),
             py::arg("se_exposure").noconvert(), py::arg("beta_outcome").noconvert(),
             py::arg("se_outcome").noconvert(), py::arg("leave_one_out").noconvert(),
             py::arg("residuals").noconvert(), py::arg("rss"), py::arg("outliers"), py::arg("seed"),
             py::arg("first"), py::arg("count"), py::arg("threads"));
  module.def("distortion_draws", &distortion_draws, py::kw_only(),
             py::arg("beta_exposure").noconvert(), py::arg("se_exposure").noconvert(),
             py::arg("beta_outcome").noconvert(), py::arg("se_outcome").noconvert(),
             py::arg("estimate").noconvert(), py::arg("dropped"), py::arg("ratio").noconvert(),
             py::arg("difference").noconvert(), py::arg("seed"), py::arg("first"), py::arg("count"),
             py::arg("threads"));
}

}  // namespace mrfast::bindings
