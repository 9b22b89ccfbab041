#include <chrono>
#include <cmath>
#include <memory>

#include "mrfast/exact.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

constexpr py::ssize_t kNodeColumns = 11;

// Data and prior of one analysis; the integrator refers to the data, so the object stays put.
class Problem {
 public:
  Problem(AssociationData data, const ScaleFreePrior& prior)
      : data_(std::make_unique<AssociationData>(std::move(data))), integrator_(*data_, prior) {}
  const AssociationData& data() const { return *data_; }
  const ExactIntegrator& integrator() const { return integrator_; }
  const CollapsedPosterior& posterior() const { return integrator_.posterior(); }

 private:
  std::unique_ptr<AssociationData> data_;
  ExactIntegrator integrator_;
};

std::unique_ptr<Problem> make_problem(
    const DoubleArray& exposure, const DoubleArray& outcome, const DoubleArray& noise_exposure,
    const DoubleArray& noise_outcome, const DoubleArray& noise_shared, const DoubleArray& log_odds,
    double s11, double slope, double s221, double n1, double n2, double n_shared, double n_slope,
    double slope_precision, double slab_sd, double spike_sd, double effect_sd,
    double confounding_sd, double scale_power, const py::list& blocks) {
  AssociationData data;
  data.size = static_cast<std::size_t>(exposure.size());
  require_size("outcome", outcome, data.size);
  require_size("noise_exposure", noise_exposure, data.size);
  require_size("noise_outcome", noise_outcome, data.size);
  require_size("noise_shared", noise_shared, data.size);
  require_size("log_odds", log_odds, data.size);
  data.h1 = to_vector(exposure);
  data.h2 = to_vector(outcome);
  data.n11 = to_vector(noise_exposure);
  data.n22 = to_vector(noise_outcome);
  data.n12 = to_vector(noise_shared);
  data.log_odds = to_vector(log_odds);
  data.s11 = s11, data.slope = slope, data.s221 = s221;
  data.n1 = n1, data.n2 = n2, data.n_shared = n_shared;
  data.n_slope = n_slope, data.slope_precision = slope_precision;
  for (const auto& item : blocks) {
    const auto [members, eigenvalues, eigenvectors] =
        item.cast<std::tuple<std::vector<std::size_t>, DoubleArray, DoubleArray>>();
    const std::size_t n = members.size();
    if (n < 1 || n > kMaxBlock)
      throw std::invalid_argument("blocks: expected 1 to " + std::to_string(kMaxBlock) +
                                  " members, received " + std::to_string(n));
    for (const std::size_t j : members)
      if (j >= data.size) throw std::invalid_argument("blocks: expected indices of candidates");
    require_size("eigenvalues", eigenvalues, n);
    require_size("eigenvectors", eigenvectors, n * n);
    CorrelatedBlock block;
    block.members = members;
    block.eigenvalues = to_vector(eigenvalues);
    block.block.eigenvectors = to_vector(eigenvectors);
    data.blocks.push_back(std::move(block));
  }
  data.prepare();
  return std::make_unique<Problem>(std::move(data),
                                   ScaleFreePrior{slab_sd * slab_sd, spike_sd * spike_sd, effect_sd,
                                                  confounding_sd, scale_power});
}

Point<double> to_point(const double* row) { return {row[0], row[1], row[2], row[3], row[4]}; }

void check_columns(const char* name, const DoubleArray& array, py::ssize_t least) {
  if (array.ndim() != 2 || array.shape(1) < least)
    throw std::invalid_argument(std::string(name) + ": expected a matrix of at least " +
                                std::to_string(least) + " columns");
}

DoubleArray values(const Problem& self, const DoubleArray& points) {
  check_columns("points", points, 5);
  DoubleArray out(points.shape(0));
  const double* row = points.data();
  double* target = out.mutable_data();
  const py::ssize_t n = points.shape(0), width = points.shape(1);
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < n; ++i, row += width)
    target[i] = self.posterior().value(to_point(row));
  return out;
}

// Value, gradient and Hessian with respect to (d1, dm, d3, c, u) of the density by these.
py::tuple expansion(const Problem& self, double d1, double dm, double d3, double c, double u) {
  using S = Jet<5>;
  const double eta = self.data().eta;
  const S j1 = S::variable(d1, 0), jm = S::variable(dm, 1), j3 = S::variable(d3, 2);
  const S jc = S::variable(c, 3), ju = S::variable(u, 4);
  const S m = jm + self.data().slope / eta;
  const S turn = exp(0.5 * (j3 - j1));
  if (!self.data().grouped)
    throw std::invalid_argument("expansion: expected candidates of few noise laws");
  S out = self.posterior().expand<5>({m - jc * turn, m, ju, j1, j3});
  out += 0.5 * (j3 - j1) + 2 * std::log(eta);
  return py::make_tuple(out.value, to_array(out.gradient.data(), 5),
                        to_array(out.hessian[0].data(), 5, 5));
}

py::tuple curvature(const Problem& self, double beta, double m, double u, double d1, double d3) {
  const Jet<2> out = self.posterior().curvature(beta, m, u, d1, d3);
  return py::make_tuple(out.value, to_array(out.gradient.data(), 2),
                        to_array(out.hessian[0].data(), 2, 2));
}

DoubleArray nodes_to_python(const std::vector<const ExactNode*>& nodes) {
  DoubleArray out({static_cast<py::ssize_t>(nodes.size()), kNodeColumns});
  double* row = out.mutable_data();
  for (const auto* node : nodes) {
    const double cells[] = {node->beta,
                            node->m,
                            node->u,
                            node->d1,
                            node->d3,
                            node->log_weight,
                            node->l00,
                            node->l10,
                            node->l11,
                            node->step,
                            static_cast<double>(node->effect)};
    row = std::copy(std::begin(cells), std::end(cells), row);
  }
  return out;
}

py::dict run(const Problem& self, double tolerance, std::size_t max_panels, std::size_t threads,
             const py::object& progress) {
  Attendant attendant(progress);
  ExactReport report;
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    report = self.integrator().run({tolerance, max_panels, threads}, monitor);
  }
  attendant.rethrow();
  py::dict out;
  out["log_evidence"] = report.log_evidence;
  out["quadrature_error"] = report.quadrature_error;
  out["converged"] = report.converged;
  const auto panels = static_cast<py::ssize_t>(report.panels.size());
  DoubleArray edges({panels, py::ssize_t{2}}), density({panels, py::ssize_t{15}});
  std::vector<const ExactNode*> nodes, zero;
  double* edge = edges.mutable_data();
  double* cell = density.mutable_data();
  for (const auto& panel : report.panels) {
    *edge++ = panel.lower;
    *edge++ = panel.upper;
    for (const auto& point : panel.points) {
      *cell++ = point.log_density;
      for (const auto& node : point.nodes) nodes.push_back(&node);
    }
  }
  for (const auto& node : report.zero.nodes) zero.push_back(&node);
  out["edges"] = edges;
  out["log_density"] = density;
  out["nodes"] = nodes_to_python(nodes);
  out["zero"] = nodes_to_python(zero);
  out["zero_log_density"] = report.zero.log_density;
  out["zero_log_slope"] = report.zero.log_slope;
  return out;
}

// Rows: sums over nodes (weights normalised by the caller) of P(slab), and of the first and second
// moments of the effects on the exposure and of the pleiotropic effects, in the given order.
DoubleArray moments(const Problem& self, const DoubleArray& nodes, const DoubleArray& weights,
                    std::size_t threads) {
  check_columns("nodes", nodes, 5);
  require_size("weights", weights, static_cast<std::size_t>(nodes.shape(0)));
  const auto& d = self.data();
  DoubleArray out({py::ssize_t{5}, static_cast<py::ssize_t>(d.size)});
  double* target = out.mutable_data();
  const double* rows = nodes.data();
  const double* weight = weights.data();
  const auto n = static_cast<std::size_t>(nodes.shape(0)),
             width = static_cast<std::size_t>(nodes.shape(1));
  Attendant attendant(py::none{});
  // Chunks of fixed size, added in order: the same sums for any number of threads.
  constexpr std::size_t kChunk = 256;
  const std::size_t chunks = (n + kChunk - 1) / kChunk;
  std::vector<NodeMoments> parts(chunks);
  std::size_t padded = d.a.size();
  for (const auto& block : d.blocks) padded += block.members.size();
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    parallel_for(chunks, threads, monitor, [&](std::size_t c) {
      auto& part = parts[c];
      for (auto* v : {&part.inclusion, &part.first, &part.first2, &part.direct, &part.direct2})
        v->assign(padded, 0);
      for (std::size_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk) && !monitor.step(); ++i)
        self.posterior().accumulate(to_point(rows + i * width), weight[i], part);
    });
  }
  attendant.rethrow();
  std::fill(target, target + 5 * d.size, 0.0);
  for (const auto& part : parts) {
    const std::vector<double>* columns[] = {&part.inclusion, &part.first, &part.first2,
                                            &part.direct, &part.direct2};
    for (std::size_t k = 0; k < 5; ++k) {
      std::size_t sorted = 0;
      for (const auto& group : d.groups)
        for (std::size_t i = group.begin; i < group.begin + group.size; ++i, ++sorted)
          target[k * d.size + d.order[sorted]] += (*columns[k])[i];
      std::size_t place = d.a.size();
      for (const auto& block : d.blocks)
        for (const std::size_t j : block.members) target[k * d.size + j] += (*columns[k])[place++];
    }
  }
  return out;
}

DoubleArray conditional(const Problem& self, const DoubleArray& nodes) {
  check_columns("nodes", nodes, 5);
  const auto size = static_cast<py::ssize_t>(self.data().size);
  DoubleArray out({nodes.shape(0), size, py::ssize_t{11}});
  double* target = out.mutable_data();
  const double* row = nodes.data();
  const py::ssize_t n = nodes.shape(0), width = nodes.shape(1);
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < n; ++i)
    self.posterior().conditional(to_point(row + i * width), target + i * size * 11);
  return out;
}

// Draws of the candidates in blocks, written into slab, first and direct (n, J) in place.
void draw_blocks(const Problem& self, const DoubleArray& nodes, const DoubleArray& uniforms,
                 const DoubleArray& normals, BoolArray& slab, DoubleArray& first,
                 DoubleArray& direct) {
  check_columns("nodes", nodes, 5);
  const auto n = static_cast<std::size_t>(nodes.shape(0)), size = self.data().size;
  const std::size_t count = self.data().blocks.size();
  std::size_t members = 0;
  for (const auto& block : self.data().blocks) members += block.members.size();
  require_size("uniforms", uniforms, n * count);
  require_size("normals", normals, 3 * n * members);
  require_size("slab", slab, n * size);
  require_size("first", first, n * size);
  require_size("direct", direct, n * size);
  const double *row = nodes.data(), *uniform = uniforms.data(), *normal = normals.data();
  bool* member = slab.mutable_data();
  double *gamma = first.mutable_data(), *alpha = direct.mutable_data();
  const auto width = static_cast<std::size_t>(nodes.shape(1));
  Attendant attendant(py::none{});
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    for (std::size_t i = 0; i < n && !monitor.step(); ++i)
      self.posterior().draw_blocks(to_point(row + i * width), uniform + i * count,
                                   normal + 3 * i * members, member + i * size, gamma + i * size,
                                   alpha + i * size);
  }
  attendant.rethrow();
}

py::tuple certificate(const Problem& self, const DoubleArray& nodes, std::size_t draws,
                      std::size_t threads) {
  check_columns("nodes", nodes, kNodeColumns);
  std::vector<ExactNode> list;
  for (py::ssize_t i = 0; i < nodes.shape(0); ++i) {
    const double* r = nodes.data() + i * nodes.shape(1);
    list.push_back({r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], 0});
  }
  Attendant attendant(py::none{});
  Certificate out;
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    out = certify(self.posterior(), list, draws, threads, monitor);
  }
  attendant.rethrow();
  return py::make_tuple(out.log_mean, out.std_error, out.effective);
}

// Seconds per evaluation in a C++ loop: of the value, or of value, gradient and Hessian.
double time_kernel(const Problem& self, const std::string& kind, std::size_t repeats) {
  const py::gil_scoped_release release;
  const auto begin = std::chrono::steady_clock::now();
  const auto& d = self.data();
  const double m = d.slope / d.eta;
  double sink = 0;
  for (std::size_t i = 0; i < repeats; ++i) {
    const double beta = m - 0.1 - 1e-9 * static_cast<double>(i);
    sink += kind == "value" ? self.posterior().value({beta, m, 0.1, 0, 0})
                            : self.posterior().curvature(beta, m, 0.1, 0, 0).value;
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  return std::isnan(sink) ? sink : spent.count() / static_cast<double>(repeats);
}

}  // namespace

void register_exact(py::module_ module) {
  py::class_<Problem>(module, "Problem")
      .def(py::init(&make_problem), py::arg("exposure").noconvert(), py::arg("outcome").noconvert(),
           py::arg("noise_exposure").noconvert(), py::arg("noise_outcome").noconvert(),
           py::arg("noise_shared").noconvert(), py::arg("log_odds").noconvert(), py::arg("s11"),
           py::arg("slope"), py::arg("s221"), py::arg("n1"), py::arg("n2"), py::arg("n_shared"),
           py::arg("n_slope"), py::arg("slope_precision"), py::arg("slab_sd"), py::arg("spike_sd"),
           py::arg("effect_sd"), py::arg("confounding_sd"), py::arg("scale_power"),
           py::arg("blocks") = py::list())
      .def_property_readonly("eta", [](const Problem& self) { return self.data().eta; })
      .def_property_readonly("sd_slope", [](const Problem& self) { return self.data().sd_slope; })
      .def_property_readonly("log_constant",
                             [](const Problem& self) { return self.posterior().log_constant(); })
      .def("values", &values, py::arg("points").noconvert())
      .def("expansion", &expansion, py::arg("d1"), py::arg("dm"), py::arg("d3"), py::arg("c"),
           py::arg("u"))
      .def("curvature", &curvature, py::arg("beta"), py::arg("m"), py::arg("u"), py::arg("d1"),
           py::arg("d3"))
      .def("run", &run, py::arg("tolerance"), py::arg("max_panels"), py::arg("threads"),
           py::arg("progress") = py::none())
      .def("moments", &moments, py::arg("nodes").noconvert(), py::arg("weights").noconvert(),
           py::arg("threads"))
      .def("conditional", &conditional, py::arg("nodes").noconvert())
      .def("draw_blocks", &draw_blocks, py::arg("nodes").noconvert(),
           py::arg("uniforms").noconvert(), py::arg("normals").noconvert(),
           py::arg("slab").noconvert(), py::arg("first").noconvert(), py::arg("direct").noconvert())
      .def("time_kernel", &time_kernel, py::arg("kind"), py::arg("repeats"))
      .def("certificate", &certificate, py::arg("nodes").noconvert(), py::arg("draws"),
           py::arg("threads"));
}

}  // namespace mrfast::bindings
