#include "mrfast/dispatch.hpp"
#include "mrfast/eigen.hpp"
#include "mrfast/random.hpp"
#include "pybind.hpp"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of mrfast; the public interface is the Python package.";
  m.def("build_config", [] {
    py::dict out;
    out["version"] = MRFAST_VERSION;
    out["compiler"] = MRFAST_COMPILER;
    out["dispatch"] = MRFAST_DISPATCH_NAME;
    return out;
  });
  m.def(
      "symmetric_eigen",
      [](const mrfast::bindings::DoubleArray& matrix) {
        if (matrix.ndim() != 2 || matrix.shape(0) != matrix.shape(1))
          throw std::invalid_argument("matrix: expected a square matrix");
        auto vectors = mrfast::bindings::to_vector(matrix);
        std::vector<double> values;
        const auto n = static_cast<std::size_t>(matrix.shape(0));
        bool converged = false;
        {
          const py::gil_scoped_release release;
          converged = mrfast::symmetric_eigen(vectors, n, values);
        }
        if (!converged) throw std::runtime_error("the eigenvalues did not converge");
        return py::make_tuple(mrfast::bindings::to_array(values.data(), n),
                              mrfast::bindings::to_array(vectors.data(), n, n));
      },
      py::arg("matrix").noconvert(),
      "Eigenvalues, ascending, and eigenvectors, one a row, of a symmetric matrix.");
  m.def("philox4x32_10", &mrfast::Philox::block, py::arg("counter"), py::arg("key"),
        "One block of the random number generator, for its tests.");
  mrfast::bindings::register_bayes(m.def_submodule("bayes"));
  mrfast::bindings::register_constrained(m.def_submodule("constrained"));
  mrfast::bindings::register_exact(m.def_submodule("exact"));
  mrfast::bindings::register_federated(m.def_submodule("federated"));
  mrfast::bindings::register_identified(m.def_submodule("identified"));
  mrfast::bindings::register_ld(m.def_submodule("ld"));
  mrfast::bindings::register_multivariable(m.def_submodule("multivariable"));
  mrfast::bindings::register_likelihood(m.def_submodule("likelihood"));
  mrfast::bindings::register_presso(m.def_submodule("presso"));
  mrfast::bindings::register_summary(m.def_submodule("summary"));
  mrfast::bindings::register_medians(m.def_submodule("medians"));
  mrfast::bindings::register_mixture(m.def_submodule("mixture"));
  mrfast::bindings::register_genotypes(m.def_submodule("genotypes"));
  mrfast::bindings::register_texts(m.def_submodule("texts"));
  mrfast::bindings::register_harmonise(m.def_submodule("harmonise"));
  mrfast::bindings::register_matrix(m.def_submodule("matrix"));
  mrfast::bindings::register_simulation(m.def_submodule("simulation"));
  mrfast::bindings::register_crossproducts(m.def_submodule("crossproducts"));
  mrfast::bindings::register_sieve(m.def_submodule("sieve"));
}
