#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>

#include "mrfast/parallel.hpp"
#include "mrfast/text_table.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

constexpr std::size_t kBetweenChecks = std::size_t{1} << 16;

// The texts of an array of objects; no text (null data) for None and NaN.
std::vector<std::string_view> texts_of_objects(const py::array& values) {
  if (values.dtype().kind() != 'O' || values.ndim() != 1)
    throw std::invalid_argument("values: expected a vector of objects");
  const auto n = static_cast<std::size_t>(values.size());
  const auto* at = static_cast<const char*>(values.data());
  const py::ssize_t stride = n > 0 ? values.strides(0) : 0;
  std::vector<std::string_view> texts(n);
  for (std::size_t i = 0; i < n; ++i, at += stride) {
    if (i % kBetweenChecks == 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
    PyObject* const value = *reinterpret_cast<PyObject* const*>(at);
    if (value == nullptr || value == Py_None) continue;
    if (PyUnicode_Check(value)) {
      Py_ssize_t size = 0;
      const char* const data = PyUnicode_AsUTF8AndSize(value, &size);
      if (data == nullptr) throw py::error_already_set();
      texts[i] = {data, static_cast<std::size_t>(size)};
    } else if (!PyFloat_Check(value) || !std::isnan(PyFloat_AS_DOUBLE(value))) {
      throw py::type_error("values: expected texts, None or NaN");
    }
  }
  return texts;
}

// Columns of texts one after the other: where each begins, the letters, and which are there.
using Buffers =
    std::tuple<IndexArray, py::array_t<std::uint8_t, py::array::c_style>, std::optional<BoolArray>>;

std::vector<std::string_view> texts_of_buffers(const Buffers& buffers) {
  const auto& [offsets, letters, present] = buffers;
  if (offsets.size() < 1) throw std::invalid_argument("offsets: expected at least one");
  const auto n = static_cast<std::size_t>(offsets.size()) - 1;
  if (present) require_size("present", *present, n);
  const std::int64_t* const at = offsets.data();
  const char* const data = reinterpret_cast<const char*>(letters.data());
  std::vector<std::string_view> texts(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (at[i] < 0 || at[i + 1] < at[i] || at[i + 1] > letters.size())
      throw std::invalid_argument("offsets: expected to rise within the letters");
    if (present && !present->data()[i]) continue;
    // An empty text has data too: that of no text is null.
    texts[i] = at[i] == at[i + 1]
                   ? std::string_view("")
                   : std::string_view(data + at[i], static_cast<std::size_t>(at[i + 1] - at[i]));
  }
  return texts;
}

std::vector<std::string_view> texts_of(const py::object& values) {
  if (py::isinstance<py::tuple>(values)) return texts_of_buffers(values.cast<Buffers>());
  return texts_of_objects(values.cast<py::array>());
}

BoolArray among(const py::object& values, const std::vector<std::string>& words) {
  const std::vector<std::string_view> texts = texts_of(values);
  std::size_t longest = 0;
  for (const auto& word : words) longest = std::max(longest, word.size());
  BoolArray out(static_cast<py::ssize_t>(texts.size()));
  bool* const found = out.mutable_data();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    found[i] = texts[i].data() == nullptr;
    if (texts[i].size() <= longest)
      for (const auto& word : words) found[i] = found[i] || texts[i] == word;
  }
  return out;
}

// Calls work(from, count) for parts of n items, until it is to stop.
template <class Work>
void in_blocks(std::size_t n, Monitor& monitor, const Work& work) {
  for (std::size_t from = 0; from < n && !monitor.step(); from += kBetweenChecks)
    work(from, std::min(kBetweenChecks, n - from));
}

py::tuple match(const py::object& first, const py::object& second) {
  const std::vector<std::string_view> left = texts_of(first), right = texts_of(second);
  IndexArray own(static_cast<py::ssize_t>(left.size())),
      other(static_cast<py::ssize_t>(right.size()));
  std::int64_t *const a = own.mutable_data(), *const b = other.mutable_data();
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    TextTable table(left.size());
    in_blocks(left.size(), monitor, [&](std::size_t from, std::size_t count) {
      table.insert(left.data() + from, count, a + from);
    });
    in_blocks(right.size(), monitor, [&](std::size_t from, std::size_t count) {
      table.find(right.data() + from, count, b + from);
    });
  }
  attendant.rethrow();
  return py::make_tuple(own, other);
}

}  // namespace

void register_texts(py::module_ module) {
  module.def("missing_or_among", &among, py::arg("values"), py::arg("words"));
  module.def("match", &match, py::arg("first"), py::arg("second"));
}

}  // namespace mrfast::bindings
