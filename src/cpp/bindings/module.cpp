#include "mrfast/dispatch.hpp"
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
  m.def("philox4x32_10", &mrfast::Philox::block, py::arg("counter"), py::arg("key"),
        "One block of the random number generator, for its tests.");
  mrfast::bindings::register_bayes(m.def_submodule("bayes"));
}
