#include "mrfast/constrained.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

struct Problem {
  ConstrainedData data;
  ConstrainedStarts starts;
};

Problem problem_of(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                   const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                   const DoubleArray& correlation, const DoubleArray& starts) {
  if (beta_exposure.ndim() != 2) throw std::invalid_argument("beta_exposure: expected a matrix");
  const auto snps = static_cast<std::size_t>(beta_exposure.shape(0));
  const auto width = static_cast<std::size_t>(beta_exposure.shape(1));
  if (width < 1 || width > 32)
    throw std::invalid_argument("beta_exposure: expected 1 to 32 exposures");
  if (snps <= width)
    throw std::invalid_argument("beta_exposure: expected more SNPs than exposures");
  require_size("se_exposure", se_exposure, snps * width);
  require_size("beta_outcome", beta_outcome, snps);
  require_size("se_outcome", se_outcome, snps);
  require_size("correlation", correlation, (width + 1) * (width + 1));
  if (starts.ndim() != 2 || starts.shape(0) < 1 ||
      static_cast<std::size_t>(starts.shape(1)) != width)
    throw std::invalid_argument("starts: expected a row for each start, a column an exposure");
  return {{snps, width, beta_exposure.data(), se_exposure.data(), beta_outcome.data(),
           se_outcome.data(), correlation.data()},
          {static_cast<std::size_t>(starts.shape(0)), starts.data()}};
}

py::tuple models(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                 const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                 const DoubleArray& correlation, const DoubleArray& starts) {
  const Problem problem =
      problem_of(beta_exposure, se_exposure, beta_outcome, se_outcome, correlation, starts);
  const auto count = static_cast<py::ssize_t>(constrained_count(problem.data));
  const auto width = static_cast<py::ssize_t>(problem.data.exposures);
  DoubleArray effects({count, width}), deviance(count), curvature({count, width, width});
  double *const e = effects.mutable_data(), *const d = deviance.mutable_data(),
                *const c = curvature.mutable_data();
  attended([&](Monitor& monitor) {
    constrained_models(problem.data, problem.starts, e, d, c, monitor);
  });
  return py::make_tuple(effects, deviance, curvature);
}

py::tuple draws(const DoubleArray& beta_exposure, const DoubleArray& se_exposure,
                const DoubleArray& beta_outcome, const DoubleArray& se_outcome,
                const DoubleArray& correlation, const DoubleArray& starts, double penalty,
                double cutoff, std::uint64_t seed, std::size_t count, std::size_t threads) {
  const Problem problem =
      problem_of(beta_exposure, se_exposure, beta_outcome, se_outcome, correlation, starts);
  require_draws("count", count);
  const auto rows = static_cast<py::ssize_t>(count);
  const auto width = static_cast<py::ssize_t>(problem.data.exposures);
  DoubleArray averaged({rows, width}), selected({rows, width});
  double *const a = averaged.mutable_data(), *const s = selected.mutable_data();
  attended([&](Monitor& monitor) {
    constrained_draws(problem.data, problem.starts, penalty, cutoff, key_of(seed), count, threads,
                      a, s, monitor);
  });
  return py::make_tuple(averaged, selected);
}

}  // namespace

void register_constrained(py::module_ module) {
  module.doc() = "Constrained maximum likelihood with invalid SNPs.";
  const auto bx = py::arg("beta_exposure").noconvert(), sx = py::arg("se_exposure").noconvert(),
             by = py::arg("beta_outcome").noconvert(), sy = py::arg("se_outcome").noconvert(),
             correlation = py::arg("correlation").noconvert(),
             starts = py::arg("starts").noconvert();
  module.def("models", &models, py::kw_only(), bx, sx, by, sy, correlation, starts);
  module.def("draws", &draws, py::kw_only(), bx, sx, by, sy, correlation, starts,
             py::arg("penalty"), py::arg("cutoff"), py::arg("seed"), py::arg("count"),
             py::arg("threads"));
}

}  // namespace mrfast::bindings
