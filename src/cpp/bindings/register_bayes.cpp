#include <chrono>
#include <exception>
#include <limits>
#include <memory>

#include "mrfast/model_search.hpp"
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
                         double pleiotropy_slope, double slab_sd, double spike_sd, double effect_sd,
                         double confounding_sd, double scale_power) {
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

py::dict search(const Posterior& self, EvidenceCache& cache, const DoubleArray& log_odds,
                const SearchOptions& options, const py::object& progress) {
  require_size("log_odds", log_odds, self.statistics.size);
  ModelSearch search(self.statistics, self.prior, to_vector(log_odds), cache);
  Attendant attendant(progress);
  SearchReport report;
  bool full = false;
  {
    py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    try {
      report = search.run(options, monitor);
    } catch (const ModelLimitReached&) {
      full = true;
    }
  }
  attendant.rethrow();
  py::dict out;
  out["full"] = full;
  out["proposed"] = report.proposed;
  out["accepted"] = report.accepted;
  out["visits"] = py::array_t<std::uint64_t>(static_cast<py::ssize_t>(report.visits.size()),
                                             report.visits.data());
  return out;
}

// Everything in the cache as arrays: bits (n, words), log evidences (n), modes per model (n),
// modes (sum, 7) in the order of evidence_to_python.
py::tuple export_cache(const EvidenceCache& cache) {
  std::vector<std::uint64_t> bits;
  std::vector<double> log_evidence, modes;
  std::vector<std::int64_t> counts;
  std::size_t width = 0;
  {
    const py::gil_scoped_release release;  // another thread may hold the cache and want the GIL
    cache.visit(
        [&](std::size_t n, std::size_t words_per_model) {
          width = words_per_model;
          bits.reserve(n * width);
          log_evidence.reserve(n);
          counts.reserve(n);
        },
        [&](const EvidenceCache::Entry& entry) {
          bits.insert(bits.end(), entry.bits.begin(), entry.bits.end());
          log_evidence.push_back(entry.evidence.log_evidence);
          counts.push_back(static_cast<std::int64_t>(entry.evidence.modes.size()));
          for (const auto& mode : entry.evidence.modes) {
            modes.insert(modes.end(), mode.parameters.begin(), mode.parameters.end());
            modes.push_back(mode.log_density);
            modes.push_back(mode.log_laplace);
          }
        });
  }
  const auto n = static_cast<py::ssize_t>(log_evidence.size());
  return py::make_tuple(
      py::array_t<std::uint64_t>({n, static_cast<py::ssize_t>(width)}, bits.data()),
      to_array(log_evidence.data(), log_evidence.size()),
      py::array_t<std::int64_t>(n, counts.data()), to_array(modes.data(), modes.size() / 7, 7));
}

void import_cache(EvidenceCache& cache, const py::array_t<std::uint64_t, py::array::c_style>& bits,
                  const DoubleArray& log_evidence,
                  const py::array_t<std::int64_t, py::array::c_style>& counts,
                  const DoubleArray& modes) {
  const auto n = static_cast<std::size_t>(log_evidence.size());
  const std::size_t width = n == 0 ? 0 : static_cast<std::size_t>(bits.size()) / n;
  require_size("counts", counts, n);
  require_size("bits", bits, n * width);
  for (std::size_t i = 0; i < n; ++i)
    if (counts.data()[i] < 0) throw std::invalid_argument("counts: expected numbers of modes");
  std::size_t total = 0;
  for (std::size_t i = 0; i < n; ++i) total += static_cast<std::size_t>(counts.data()[i]);
  require_size("modes", modes, 7 * total);
  const double* row = modes.data();
  for (std::size_t i = 0; i < n; ++i) {
    Evidence evidence;
    evidence.log_evidence = log_evidence.data()[i];
    evidence.modes.resize(static_cast<std::size_t>(counts.data()[i]));
    for (auto& mode : evidence.modes) {
      std::copy(row, row + 5, mode.parameters.begin());
      mode.log_density = row[5];
      mode.log_laplace = row[6];
      row += 7;
    }
    cache.insert(Bits(bits.data() + i * width, bits.data() + (i + 1) * width), std::move(evidence));
  }
}

// Roots of the covariances of the five parameters at modes of several models: bits (n, words),
// modes per model (n), modes (sum, 7) give (sum, 5, 5).
DoubleArray mode_roots(const Posterior& self,
                       const py::array_t<std::uint64_t, py::array::c_style>& bits,
                       const py::array_t<std::int64_t, py::array::c_style>& counts,
                       const DoubleArray& modes) {
  const auto n = static_cast<std::size_t>(counts.size());
  const std::size_t width = words(self.statistics.size);
  require_size("bits", bits, n * width);
  const py::ssize_t total = modes.size() / 7;
  DoubleArray out({total, py::ssize_t{5}, py::ssize_t{5}});
  const double* row = modes.data();
  double* target = out.mutable_data();
  const double* const end = row + modes.size();
  const py::gil_scoped_release release;
  for (std::size_t i = 0; i < n; ++i) {
    const Profile profile(self.statistics, self.prior,
                          Bits(bits.data() + i * width, bits.data() + (i + 1) * width));
    for (std::int64_t m = 0; m < counts.data()[i] && row < end; ++m, row += 7, target += 25) {
      Vector<5> p;
      std::copy(row, row + 5, p.begin());
      Matrix<5> root;
      if (!covariance_root(profile, p, root))
        for (auto& values : root) values.fill(std::numeric_limits<double>::quiet_NaN());
      std::copy(root[0].data(), root[0].data() + 25, target);
    }
  }
  return out;
}

// Seconds per evidence in a C++ loop: from a scan, from MASSIVE's starts, or of all neighbours
// started from the modes of the model (per neighbour).
double time_evidence(const Posterior& self, const BoolArray& model, const std::string& kind,
                     std::size_t repeats) {
  const Bits bits = to_bits(self, model);
  py::gil_scoped_release release;
  const auto begin = std::chrono::steady_clock::now();
  std::size_t done = 0;
  double sink = 0;
  if (kind == "neighbours") {
    const Evidence here = scan_evidence(Profile(self.statistics, self.prior, bits));
    std::vector<Vector<5>> points;
    for (const auto& mode : here.modes) points.push_back(mode.parameters);
    for (std::size_t r = 0; r < repeats; ++r)
      for (std::size_t j = 0; j < self.statistics.size; ++j, ++done) {
        Bits neighbour = bits;
        flip(neighbour, j);
        sink += evidence_from_points(Profile(self.statistics, self.prior, neighbour), points)
                    .log_evidence;
      }
  } else {
    const auto starts = massive_starts(self.statistics);
    for (std::size_t r = 0; r < repeats; ++r, ++done) {
      const Profile profile(self.statistics, self.prior, bits);
      sink += (kind == "scan" ? scan_evidence(profile) : evidence_from_starts(profile, starts))
                  .log_evidence;
    }
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  return std::isnan(sink) ? sink : elapsed.count() / static_cast<double>(done);
}

}  // namespace

void register_bayes(py::module_ m) {
  m.doc() = "Laplace evidence of spike-and-slab models and the search over them.";
  py::class_<EvidenceCache>(m, "EvidenceCache")
      .def(py::init<std::size_t>(), py::arg("max_models"))
      .def_property_readonly("size", &EvidenceCache::size)
      .def_property_readonly("max_models", &EvidenceCache::max_models)
      .def_property_readonly("lookups", &EvidenceCache::lookups)
      .def("export_arrays", &export_cache)
      .def("import_arrays", &import_cache, py::arg("bits").noconvert(),
           py::arg("log_evidence").noconvert(), py::arg("counts").noconvert(),
           py::arg("modes").noconvert());

  py::class_<Posterior>(m, "Posterior")
      .def(py::init(&make_posterior), py::kw_only(), py::arg("n"), py::arg("noise").noconvert(),
           py::arg("coefficients").noconvert(), py::arg("residual_exposure"),
           py::arg("residual_slope"), py::arg("residual_outcome"), py::arg("rotation").noconvert(),
           py::arg("mean_direction").noconvert(), py::arg("mean_exposure"), py::arg("mean_outcome"),
           py::arg("pleiotropy_slope"), py::arg("slab_sd"), py::arg("spike_sd"),
           py::arg("effect_sd"), py::arg("confounding_sd"), py::arg("scale_power"))
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
          py::arg("model").noconvert(), py::arg("parameters").noconvert())
      .def(
          "predict_neighbours",
          [](const Posterior& self, const BoolArray& model, const DoubleArray& log_odds) {
            EvidenceCache cache(2);
            ModelSearch search(self.statistics, self.prior, to_vector(log_odds), cache);
            const auto out = search.predict_neighbours(search.evaluate(to_bits(self, model)));
            return to_array(out.data(), out.size());
          },
          py::arg("model").noconvert(), py::arg("log_odds").noconvert())
      .def(
          "search",
          [](const Posterior& self, EvidenceCache& cache, const DoubleArray& log_odds,
             std::uint64_t iterations, std::size_t chains, std::size_t threads, std::uint64_t seed,
             const std::array<double, kMoves>& move_probability, const py::object& progress) {
            return search(self, cache, log_odds,
                          {iterations, chains, threads, seed, move_probability}, progress);
          },
          py::kw_only(), py::arg("cache"), py::arg("log_odds").noconvert(), py::arg("iterations"),
          py::arg("chains"), py::arg("threads"), py::arg("seed"), py::arg("move_probability"),
          py::arg("progress"))
      .def(
          "evaluate",
          [](const Posterior& self, EvidenceCache& cache, const BoolArray& model) {
            ModelSearch search(self.statistics, self.prior,
                               std::vector<double>(self.statistics.size, 0.0), cache);
            search.evaluate(to_bits(self, model));
          },
          py::arg("cache"), py::arg("model").noconvert())
      .def(
          "draw",
          [](const Posterior& self, const BoolArray& model, const DoubleArray& parameters,
             const DoubleArray& root, DoubleArray normals) {
            const Profile profile(self.statistics, self.prior, to_bits(self, model));
            const Vector<5> p = to_vector5(parameters);
            require_size("root", root, 25);
            Matrix<5> matrix;
            std::copy(root.data(), root.data() + 25, matrix[0].data());
            const std::size_t width = profile.draw_width();
            const std::size_t count = static_cast<std::size_t>(normals.size()) / width;
            require_size("normals", normals, count * width);
            double* rows = normals.mutable_data();
            const py::gil_scoped_release release;
            profile.draw(p, matrix, rows, count);
          },
          py::arg("model").noconvert(), py::arg("parameters").noconvert(),
          py::arg("root").noconvert(), py::arg("normals").noconvert())
      .def("mode_roots", &mode_roots, py::arg("bits").noconvert(), py::arg("counts").noconvert(),
           py::arg("modes").noconvert())
      .def("time_evidence", &time_evidence, py::arg("model").noconvert(), py::arg("kind"),
           py::arg("repeats"));
}

}  // namespace mrfast::bindings
