#include <array>
#include <memory>
#include <mutex>
#include <optional>

#include "mrfast/identified.hpp"
#include "mrfast/ld_likelihood.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using IntArray = py::array_t<std::int64_t, py::array::c_style>;

// Data with a table of hyper-parameters and, where the slope is known, the law of c.
struct Identified {
  std::shared_ptr<const SlopePrior> slope_prior;
  std::unique_ptr<const BlockLikelihood> blocks;
  std::optional<IdentifiedModel> model;
  double slope = 0, slope_sd = 0;
};

// The laws of c that were used last: their tables take longer to make than a small data set.
std::shared_ptr<const SlopePrior> shared_slope_prior(double sd_x, double sd_y) {
  struct Entry {
    double sd_x, sd_y;
    std::shared_ptr<const SlopePrior> law;
  };
  static std::mutex mutex;
  static std::vector<Entry> kept;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const Entry& entry : kept)
      if (entry.sd_x == sd_x && entry.sd_y == sd_y) return entry.law;
  }
  auto law = std::make_shared<const SlopePrior>(sd_x, sd_y);
  const std::lock_guard<std::mutex> lock(mutex);
  if (kept.size() >= 16) kept.erase(kept.begin());
  kept.push_back({sd_x, sd_y, law});
  return law;
}

// Indices, eigenvalues and eigenvectors (columns) of a block.
using BlockArrays = std::tuple<IntArray, DoubleArray, DoubleArray>;

std::vector<CorrelatedGroup> make_groups(const std::vector<BlockArrays>& blocks, std::size_t size,
                                         std::vector<bool>& independent) {
  std::vector<CorrelatedGroup> out;
  for (const auto& [indices, eigenvalues, eigenvectors] : blocks) {
    CorrelatedGroup group;
    const auto b = static_cast<std::size_t>(indices.size());
    if (b == 0 || b > kMaxBlock)
      throw std::invalid_argument("blocks: expected 1 to " + std::to_string(kMaxBlock) +
                                  " candidates each, received " + std::to_string(b));
    require_size("blocks", eigenvalues, b);
    require_size("blocks", eigenvectors, b * b);
    for (std::size_t i = 0; i < b; ++i) {
      const auto j = static_cast<std::size_t>(indices.data()[i]);
      if (j >= size || !independent[j])
        throw std::invalid_argument("blocks: expected places of candidates, each in one block");
      if (!(eigenvalues.data()[i] > 0))
        throw std::invalid_argument("blocks: expected eigenvalues above 0");
      independent[j] = false;
      group.members.push_back(j);
    }
    group.eigenvalues = to_vector(eigenvalues);
    group.block = {b, to_vector(eigenvectors)};
    out.push_back(std::move(group));
  }
  return out;
}

std::unique_ptr<Identified> make_identified(const DoubleArray& x, const DoubleArray& y,
                                            const DoubleArray& n11, const DoubleArray& n22,
                                            const DoubleArray& n12, double slope, double slope_sd,
                                            const std::array<double, 2>& confounding_sd, double g,
                                            const IntArray& mean, const DoubleArray& a0,
                                            const DoubleArray& a1, const DoubleArray& rho,
                                            const DoubleArray& pi, const DoubleArray& weight,
                                            const std::vector<BlockArrays>& blocks) {
  const auto size = static_cast<std::size_t>(x.size());
  if (size == 0) throw std::invalid_argument("x: expected at least one candidate");
  require_size("y", y, size);
  require_size("n11", n11, size);
  require_size("n22", n22, size);
  require_size("n12", n12, size);
  const auto nodes = static_cast<std::size_t>(pi.size());
  if (nodes == 0) throw std::invalid_argument("pi: expected at least one node");
  require_size("mean", mean, nodes);
  require_size("a0", a0, nodes);
  require_size("a1", a1, nodes);
  require_size("rho", rho, nodes);
  require_size("weight", weight, nodes);
  const Associations data{to_vector(x),   to_vector(y),   to_vector(n11),
                          to_vector(n22), to_vector(n12), slope};
  HyperTable table{
      {}, to_vector(a0), to_vector(a1), to_vector(rho), to_vector(pi), to_vector(weight)};
  for (std::size_t h = 0; h < nodes; ++h) {
    const std::int64_t kind = mean.data()[h];
    if (kind < 0 || kind > 2) throw std::invalid_argument("mean: expected 0, 1 or 2");
    table.mean.push_back(static_cast<SlabMean>(kind));
  }
  std::vector<bool> independent(size, true);
  const auto groups = make_groups(blocks, size, independent);
  auto out = std::make_unique<Identified>();
  const py::gil_scoped_release release;
  out->slope = slope;
  out->slope_sd = slope_sd;
  if (!groups.empty())
    out->blocks = std::make_unique<const BlockLikelihood>(data, table, g, groups);
  out->model.emplace(data, table, g, independent, out->blocks.get());
  if (slope_sd > 0) {
    out->slope_prior = shared_slope_prior(confounding_sd[0], confounding_sd[1]);
    out->model->set_slope_prior(out->slope_prior.get(), slope_sd);
  }
  return out;
}

// Runs without the GIL, yet looks after signals and progress.
template <class Work>
auto attended(const py::object& progress, const Work& work) {
  Attendant attendant(progress);
  std::optional<std::invoke_result_t<Work, Monitor&>> result;
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    result.emplace(work(monitor));
  }
  attendant.rethrow();
  return std::move(*result);
}

py::dict law_to_python(const EffectLaw& law) {
  py::dict out;
  out["edges"] = to_array(law.edges.data(), law.edges.size());
  out["log_density"] =
      to_array(law.log_density.data(), law.log_density.size() / kPanelNodes, kPanelNodes);
  out["log_evidence"] = law.log_evidence;
  out["error"] = law.error;
  out["evaluations"] = law.evaluations;
  return out;
}

py::dict summarise(const Identified& self, double effect_sd, double tolerance, double depth,
                   std::size_t threads, const py::object& progress) {
  const IdentifiedOptions options{tolerance, depth, 600, threads};
  const IdentifiedSummary summary = attended(progress, [&](Monitor& monitor) {
    return self.model->summarise(effect_sd, options, monitor);
  });
  py::dict out = law_to_python(summary.law);
  const auto vector = [&](const char* name, const std::vector<double>& values) {
    out[name] = to_array(values.data(), values.size());
  };
  vector("node", summary.node);
  vector("node_weight", summary.node_weight);
  vector("hyper", summary.hyper);
  vector("inclusion", summary.inclusion);
  vector("first_stage_mean", summary.first_stage_mean);
  vector("first_stage_sd", summary.first_stage_sd);
  vector("pleiotropy_mean", summary.pleiotropy_mean);
  vector("pleiotropy_sd", summary.pleiotropy_sd);
  return out;
}

py::tuple draw(const Identified& self, const DoubleArray& b, const DoubleArray& uniforms,
               const DoubleArray& normals, std::size_t threads) {
  const auto n = static_cast<std::size_t>(b.size());
  const std::size_t size = self.model->size();
  require_size("uniforms", uniforms, n * (1 + size));
  require_size("normals", normals, n * 2 * size);
  const auto rows = static_cast<py::ssize_t>(n), columns = static_cast<py::ssize_t>(size);
  IntArray node(rows);
  BoolArray slab({rows, columns});
  DoubleArray first_stage({rows, columns}), pleiotropy({rows, columns});
  auto* node_data = node.mutable_data();
  auto* slab_data = slab.mutable_data();
  auto* first_data = first_stage.mutable_data();
  auto* second_data = pleiotropy.mutable_data();
  attended(py::none(), [&](Monitor& monitor) {
    self.model->draw(b.data(), n, uniforms.data(), normals.data(), node_data, slab_data, first_data,
                     second_data, threads, monitor);
    return 0;
  });
  return py::make_tuple(node, slab, first_stage, pleiotropy);
}

template <class Function>
DoubleArray map(const DoubleArray& values, const Function& function) {
  DoubleArray out(values.size());
  const double* source = values.data();
  double* target = out.mutable_data();
  const py::ssize_t n = values.size();
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < n; ++i) target[i] = function(source[i]);
  return out;
}

}  // namespace

void register_identified(py::module_ m) {
  m.doc() = "Posterior of the causal effect under the prior on the identified scale.";

  m.def(
      "first_stage_variance",
      [](const DoubleArray& x, const DoubleArray& n11, double threshold,
         std::optional<std::size_t> selected) {
        require_size("n11", n11, static_cast<std::size_t>(x.size()));
        const auto xs = to_vector(x), noise = to_vector(n11);
        FirstStageVariance out{};
        {
          const py::gil_scoped_release release;
          out = first_stage_variance(xs, noise, threshold, selected.value_or(xs.size()));
        }
        return py::make_tuple(out.value, out.at_boundary);
      },
      py::arg("x").noconvert(), py::arg("n11").noconvert(), py::arg("threshold"),
      py::arg("selected") = py::none());

  py::class_<SlopePrior, std::shared_ptr<SlopePrior>>(m, "SlopePrior")
      .def(py::init<double, double>(), py::arg("sd_exposure"), py::arg("sd_outcome"))
      .def(
          "log_density",
          [](const SlopePrior& self, const DoubleArray& c) {
            return map(c, [&](double value) { return self.log_density(value); });
          },
          py::arg("c").noconvert())
      .def(
          "log_smoothed",
          [](const SlopePrior& self, const DoubleArray& center, double sd) {
            return map(center, [&](double value) { return self.log_smoothed(value, sd); });
          },
          py::arg("center").noconvert(), py::arg("sd"))
      .def(
          "conditional_quantile",
          [](const SlopePrior& self, const DoubleArray& center, double sd,
             const DoubleArray& probability) {
            require_size("probability", probability, static_cast<std::size_t>(center.size()));
            std::size_t i = 0;
            return map(center, [&](double value) {
              return self.conditional_quantile(value, sd, probability.data()[i++]);
            });
          },
          py::arg("center").noconvert(), py::arg("sd"), py::arg("probability").noconvert())
      .def(
          "confounding_quantile",
          [](const SlopePrior& self, const DoubleArray& c, const DoubleArray& probability) {
            require_size("probability", probability, static_cast<std::size_t>(c.size()));
            std::size_t i = 0;
            return map(c, [&](double value) {
              return self.confounding_quantile(value, probability.data()[i++]);
            });
          },
          py::arg("c").noconvert(), py::arg("probability").noconvert());

  py::class_<Identified>(m, "Model")
      .def(py::init(&make_identified), py::kw_only(), py::arg("x").noconvert(),
           py::arg("y").noconvert(), py::arg("n11").noconvert(), py::arg("n22").noconvert(),
           py::arg("n12").noconvert(), py::arg("slope"), py::arg("slope_sd"),
           py::arg("confounding_sd"), py::arg("g"), py::arg("mean").noconvert(),
           py::arg("a0").noconvert(), py::arg("a1").noconvert(), py::arg("rho").noconvert(),
           py::arg("pi").noconvert(), py::arg("weight").noconvert(),
           py::arg("blocks") = std::vector<BlockArrays>())
      .def(
          "log_likelihood",
          [](const Identified& self, const DoubleArray& b) {
            DoubleArray out({b.size(), static_cast<py::ssize_t>(self.model->hyper_size())});
            const double* source = b.data();
            double* target = out.mutable_data();
            const auto n = static_cast<std::size_t>(b.size());
            const py::gil_scoped_release release;
            self.model->log_likelihood(source, n, target);
            return out;
          },
          py::arg("b").noconvert())
      .def(
          "log_marginal",
          [](const Identified& self, const DoubleArray& b, std::size_t threads) {
            const auto values = to_vector(b);
            const auto out = attended(py::none(), [&](Monitor& monitor) {
              return self.model->log_marginal(values, threads, monitor);
            });
            return to_array(out.data(), out.size());
          },
          py::arg("b").noconvert(), py::arg("threads"))
      .def(
          "log_prior",
          [](const Identified& self, const DoubleArray& b, double effect_sd) {
            return map(b, [&](double value) { return self.model->log_prior(value, effect_sd); });
          },
          py::arg("b").noconvert(), py::arg("effect_sd"))
      .def(
          "integrate",
          [](const Identified& self, double effect_sd, double tolerance, double depth,
             std::size_t threads, const py::object& progress) {
            const IdentifiedOptions options{tolerance, depth, 600, threads};
            return law_to_python(attended(progress, [&](Monitor& monitor) {
              return self.model->integrate(effect_sd, options, monitor);
            }));
          },
          py::kw_only(), py::arg("effect_sd"), py::arg("tolerance"), py::arg("depth"),
          py::arg("threads"), py::arg("progress"))
      .def("summarise", &summarise, py::kw_only(), py::arg("effect_sd"), py::arg("tolerance"),
           py::arg("depth"), py::arg("threads"), py::arg("progress"))
      .def("draw", &draw, py::arg("b").noconvert(), py::arg("uniforms").noconvert(),
           py::arg("normals").noconvert(), py::arg("threads"));
}

}  // namespace mrfast::bindings
