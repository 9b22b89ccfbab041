#include "mrfast/modes.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

// A data set with a prior: what every evaluation of a model needs.
struct Posterior {
  Statistics statistics;
  Prior prior;
};

Posterior make_posterior(double n, const DoubleArray& noise, const DoubleArray& coefficients,
                         double s11, double slope, double s221, const DoubleArray& rotation,
                         const DoubleArray& mean_direction, double mean_x, double mean_y,
                         double pleiotropy_slope, double slab_sd, double spike_sd, double effect_sd, double confounding_sd,
                         double scale_power) {
  Posterior out;
  auto& s = out.statistics;
  s.size = static_cast<std::size_t>(noise.size());
  s.n = n;
  s.noise = to_vector(noise);
  require_size("coefficients", coefficients, 2 * s.size);
  s.h1.assign(coefficients.data(), coefficients.data() + s.size);
  s.h2.assign(coefficients.data() + s.size, coefficients.data() + 2 * s.size);
  s.s11 = s11;
  s.slope = slope;
  s.s221 = s221;
  if (rotation.size() > 0) require_size("rotation", rotation, s.size * s.size);
  s.rotation = to_vector(rotation);
  if (mean_direction.size() > 0) require_size("mean_direction", mean_direction, s.size);
  s.mean_direction = to_vector(mean_direction);
  s.mean_x = mean_x;
  s.mean_y = mean_y;
  s.pleiotropy_slope = pleiotropy_slope;
  s.prepare();
  out.prior = {slab_sd * slab_sd, spike_sd * spike_sd, effect_sd * effect_sd,
               confounding_sd * confounding_sd, scale_power};
  return out;
}

Bits to_bits(const Posterior& posterior, const BoolArray& model) {
  require_size("model", model, posterior.statistics.size);
  Bits bits(words(posterior.statistics.size), 0);
  for (std::size_t j = 0; j < posterior.statistics.size; ++j)
    if (model.data()[j]) flip(bits, j);
  return bits;
}

Vector<5> to_vector5(const DoubleArray& p) {
  require_size("parameters", p, 5);
  Vector<5> out;
  std::copy(p.data(), p.data() + 5, out.begin());
  return out;
}

// Rows: b, kX, kY, lX, lY, log density, log Laplace term.
py::tuple evidence_to_python(const Evidence& evidence) {
  DoubleArray modes({static_cast<py::ssize_t>(evidence.modes.size()), py::ssize_t{7}});
  double* row = modes.mutable_data();
  for (const auto& mode : evidence.modes) {
    std::copy(mode.parameters.begin(), mode.parameters.end(), row);
    row[5] = mode.log_density;
    row[6] = mode.log_laplace;
    row += 7;
  }
  return py::make_tuple(evidence.log_evidence, modes);
}

}  // namespace

void register_bayes(py::module_ m) {
  m.doc() = "Laplace evidence of spike-and-slab models and the search over them.";
  py::class_<Posterior>(m, "Posterior")
      .def(py::init(&make_posterior), py::kw_only(), py::arg("n"), py::arg("noise").noconvert(),
           py::arg("coefficients").noconvert(), py::arg("residual_exposure"),
           py::arg("residual_slope"), py::arg("residual_outcome"), py::arg("rotation").noconvert(),
           py::arg("mean_direction").noconvert(), py::arg("mean_exposure"),
           py::arg("mean_outcome"), py::arg("pleiotropy_slope"), py::arg("slab_sd"), py::arg("spike_sd"), py::arg("effect_sd"),
           py::arg("confounding_sd"), py::arg("scale_power"))
      .def(
          "evidence_scan",
          [](const Posterior& self, const BoolArray& model) {
            const Bits bits = to_bits(self, model);
            Evidence evidence;
            {
              py::gil_scoped_release release;  // no Python object is touched inside
              evidence = scan_evidence(Profile(self.statistics, self.prior, bits));
            }
            return evidence_to_python(evidence);
          },
          py::arg("model").noconvert())
      .def(
          "evidence_from_starts",
          [](const Posterior& self, const BoolArray& model, const DoubleArray& starts) {
            const Bits bits = to_bits(self, model);
            std::vector<Start> points;
            for (py::ssize_t i = 0; i + 1 < starts.size(); i += 2)
              points.push_back({starts.data()[i], starts.data()[i + 1]});
            Evidence evidence;
            {
              py::gil_scoped_release release;
              evidence = evidence_from_starts(Profile(self.statistics, self.prior, bits), points);
            }
            return evidence_to_python(evidence);
          },
          py::arg("model").noconvert(), py::arg("starts").noconvert())
      .def("massive_starts",
           [](const Posterior& self) {
             const auto starts = massive_starts(self.statistics);
             DoubleArray out({static_cast<py::ssize_t>(starts.size()), py::ssize_t{2}});
             for (std::size_t i = 0; i < starts.size(); ++i) {
               out.mutable_data()[2 * i] = starts[i].kappa_x;
               out.mutable_data()[2 * i + 1] = starts[i].kappa_y;
             }
             return out;
           })
      .def(
          "profile",
          [](const Posterior& self, const BoolArray& model, const DoubleArray& parameters) {
            const Profile profile(self.statistics, self.prior, to_bits(self, model));
            const Evaluation ev = profile.evaluate(to_vector5(parameters));
            return py::make_tuple(ev.value + profile.log_density_constant(),
                                  to_array(ev.gradient.data(), 5),
                                  to_array(ev.hessian[0].data(), 5, 5));
          },
          py::arg("model").noconvert(), py::arg("parameters").noconvert())
      .def(
          "effects",
          [](const Posterior& self, const BoolArray& model, const DoubleArray& parameters) {
            const Profile profile(self.statistics, self.prior, to_bits(self, model));
            const auto size = static_cast<py::ssize_t>(self.statistics.size);
            DoubleArray out({py::ssize_t{2}, size});
            profile.effects(to_vector5(parameters), out.mutable_data(), out.mutable_data() + size);
            return out;
          },
          py::arg("model").noconvert(), py::arg("parameters").noconvert());
}

}  // namespace mrfast::bindings
