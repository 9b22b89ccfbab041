#include <optional>

#include "mrfast/sieve_rows.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using FoldArray = py::array_t<std::uint8_t, py::array::c_style>;
using SplineArrays = std::pair<DoubleArray, DoubleArray>;  // points, pieces

CubicSpline make_spline(const char* name, const std::optional<SplineArrays>& arrays) {
  if (!arrays) return {};
  const auto& [points, pieces] = *arrays;
  if (points.size() < 2) throw std::invalid_argument(std::string(name) + ": expected 2 points");
  const auto intervals = static_cast<std::size_t>(points.size() - 1);
  require_size(name, pieces, 16 * intervals);
  return {points.data(), pieces.data(), intervals};
}

// The kernel's rows and the arrays that they look at.
struct Rows {
  SieveRows rows;
  std::vector<py::object> kept;

  const double* keep(const char* name, const std::optional<DoubleArray>& array, std::size_t size) {
    if (!array) return nullptr;
    require_size(name, *array, size);
    kept.push_back(*array);
    return array->data();
  }
};

Rows make_rows(const DoubleArray& exposure, const DoubleArray& instrument, const std::string& basis,
               const std::optional<SplineArrays>& basis_spline,
               const std::optional<DoubleArray>& levels,
               const std::optional<DoubleArray>& covariates,
               const std::optional<DoubleArray>& weight, const std::optional<DoubleArray>& outcome,
               const std::optional<SplineArrays>& exposure_spline,
               const std::optional<DoubleArray>& residual,
               const std::optional<SplineArrays>& residual_spline,
               const std::optional<DoubleArray>& prediction,
               const std::optional<SplineArrays>& prediction_spline,
               const std::vector<std::pair<int, int>>& interactions) {
  Rows out;
  SieveRows& rows = out.rows;
  rows.n = static_cast<std::size_t>(exposure.size());
  rows.exposure = out.keep("exposure", exposure, rows.n);
  rows.instrument = out.keep("instrument", instrument, rows.n);
  rows.outcome = out.keep("outcome", outcome, rows.n);
  rows.residual = out.keep("residual", residual, rows.n);
  rows.prediction = out.keep("prediction", prediction, rows.n);
  rows.weight = out.keep("weight", weight, rows.n);
  if (covariates) {
    if (covariates->ndim() != 2) throw std::invalid_argument("covariates: expected a matrix");
    rows.q = static_cast<std::size_t>(covariates->shape(1));
    rows.covariates = out.keep("covariates", covariates, rows.n * rows.q);
  }
  for (const auto& spline : {basis_spline, exposure_spline, residual_spline, prediction_spline})
    if (spline) {
      out.kept.push_back(spline->first);
      out.kept.push_back(spline->second);
    }
  rows.exposure_spline = make_spline("exposure_spline", exposure_spline);
  rows.residual_spline = make_spline("residual_spline", residual_spline);
  rows.prediction_spline = make_spline("prediction_spline", prediction_spline);
  if (basis == "spline") {
    if (!basis_spline) throw std::invalid_argument("basis_spline: expected one");
    rows.basis.kind = InstrumentBasis::Kind::spline;
    rows.basis.spline = make_spline("basis_spline", basis_spline);
  } else if (basis == "levels") {
    if (!levels) throw std::invalid_argument("levels: expected some");
    rows.basis.kind = InstrumentBasis::Kind::levels;
    rows.basis.n_levels = static_cast<std::size_t>(levels->size());
    rows.basis.levels = out.keep("levels", levels, rows.basis.n_levels);
  } else if (basis == "powers") {
    rows.basis.kind = InstrumentBasis::Kind::powers;
  } else {
    throw std::invalid_argument("basis: expected 'spline', 'levels' or 'powers'");
  }
  if (residual_spline && (!residual || (!interactions.empty() && !prediction)))
    throw std::invalid_argument("residual: expected with its spline, and a prediction");
  for (const auto& [power, function] : interactions) {
    if (power < 1 || function < 0 ||
        (function >= 2 &&
         static_cast<std::size_t>(function - 2) >= rows.prediction_spline.functions()))
      throw std::invalid_argument("interactions: expected powers and functions that there are");
    rows.interactions.push_back({power, function});
  }
  return out;
}

void require_model(const Rows& self) {
  if (self.rows.outcome == nullptr || self.rows.exposure_spline.intervals == 0)
    throw std::invalid_argument("outcome: expected with a spline of the exposure");
}

DoubleArray square(std::size_t m) {
  const auto size = static_cast<py::ssize_t>(m);
  return DoubleArray({size, size});
}

template <class Work>
DoubleArray gram(std::size_t m, const Work& work) {
  DoubleArray out = square(m);
  double* const data = out.mutable_data();
  attended([&](Monitor& monitor) {
    work(monitor, data);
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < i; ++j) data[i * m + j] = data[j * m + i];
  });
  return out;
}

template <class T>
ScoreRows<T> make_score_rows(const py::array_t<T, 0>& instruments, const DoubleArray& shift,
                             const std::optional<DoubleArray>& covariates,
                             const std::optional<DoubleArray>& exposure,
                             const std::optional<DoubleArray>& weight,
                             const std::optional<FoldArray>& fold, std::size_t folds) {
  if (instruments.ndim() != 2) throw std::invalid_argument("instruments: expected a matrix");
  ScoreRows<T> rows;
  rows.n = static_cast<std::size_t>(instruments.shape(0));
  rows.p = static_cast<std::size_t>(instruments.shape(1));
  rows.folds = folds;
  rows.instruments = instruments.data();
  constexpr auto kSize = static_cast<py::ssize_t>(sizeof(T));
  rows.row_stride = instruments.strides(0) / kSize;
  rows.column_stride = instruments.strides(1) / kSize;
  require_size("shift", shift, rows.p);
  rows.shift = shift.data();
  if (fold) {
    require_size("fold", *fold, rows.n);
    rows.fold = fold->data();
    for (std::size_t i = 0; i < rows.n; ++i)
      if (rows.fold[i] >= folds) throw std::invalid_argument("fold: expected numbers below folds");
  }
  if (covariates) {
    if (covariates->ndim() != 2) throw std::invalid_argument("covariates: expected a matrix");
    rows.q = static_cast<std::size_t>(covariates->shape(1));
    require_size("covariates", *covariates, rows.n * rows.q);
    rows.covariates = covariates->data();
  }
  if (exposure) {
    require_size("exposure", *exposure, rows.n);
    rows.exposure = exposure->data();
  }
  if (weight) {
    require_size("weight", *weight, rows.n);
    rows.weight = weight->data();
  }
  return rows;
}

template <class T>
DoubleArray typed_fold_grams(const py::array& instruments, const DoubleArray& shift,
                             const std::optional<DoubleArray>& covariates,
                             const DoubleArray& exposure, const std::optional<DoubleArray>& weight,
                             const FoldArray& fold, std::size_t folds, std::size_t threads) {
  const auto rows = make_score_rows<T>(py::cast<py::array_t<T, 0>>(instruments), shift, covariates,
                                       std::optional<DoubleArray>(exposure), weight, fold, folds);
  const std::size_t m = 2 + rows.p + rows.q;
  DoubleArray out(
      {static_cast<py::ssize_t>(folds), static_cast<py::ssize_t>(m), static_cast<py::ssize_t>(m)});
  double* const data = out.mutable_data();
  attended([&](Monitor& monitor) {
    fold_grams(rows, threads, monitor, data);
    for (std::size_t f = 0; f < folds; ++f)
      for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < i; ++j) data[(f * m + i) * m + j] = data[(f * m + j) * m + i];
  });
  return out;
}

template <class T>
DoubleArray typed_fold_scores(const py::array& instruments, const DoubleArray& shift,
                              const FoldArray& fold, const DoubleArray& coefficients,
                              std::size_t threads) {
  if (coefficients.ndim() != 2)
    throw std::invalid_argument("coefficients: expected a matrix, one row a fold");
  const auto folds = static_cast<std::size_t>(coefficients.shape(0));
  const auto rows = make_score_rows<T>(py::cast<py::array_t<T, 0>>(instruments), shift,
                                       std::nullopt, std::nullopt, std::nullopt, fold, folds);
  require_size("coefficients", coefficients, folds * rows.p);
  const double* const b = coefficients.data();
  DoubleArray out(static_cast<py::ssize_t>(rows.n));
  double* const data = out.mutable_data();
  attended([&](Monitor& monitor) { fold_scores(rows, b, threads, monitor, data); });
  return out;
}

template <class T>
DoubleArray typed_products(const py::array& instruments, const DoubleArray& shift,
                           const DoubleArray& values, std::size_t threads) {
  const auto rows = make_score_rows<T>(py::cast<py::array_t<T, 0>>(instruments), shift,
                                       std::nullopt, std::nullopt, std::nullopt, std::nullopt, 1);
  require_size("values", values, rows.n);
  const double* const from = values.data();
  DoubleArray out(static_cast<py::ssize_t>(rows.p));
  double* const data = out.mutable_data();
  attended([&](Monitor& monitor) { instrument_products(rows, from, threads, monitor, data); });
  return out;
}

// Calls work<T>() for the type of the instruments, which are read as they lie.
template <class Work>
DoubleArray by_type(const py::array& instruments, const Work& work) {
  if (py::isinstance<py::array_t<std::int8_t>>(instruments)) return work(std::int8_t{});
  if (py::isinstance<py::array_t<float>>(instruments)) return work(float{});
  if (py::isinstance<py::array_t<double>>(instruments)) return work(double{});
  throw std::invalid_argument("instruments: expected int8, float32 or float64");
}

}  // namespace

void register_sieve(py::module_ module) {
  module.doc() = "Penalised splines with instruments: sums over rows.";
  py::class_<Rows>(module, "SieveRows")
      .def(py::init(&make_rows), py::kw_only(), py::arg("exposure").noconvert(),
           py::arg("instrument").noconvert(), py::arg("basis"),
           py::arg("basis_spline") = py::none(), py::arg("levels").noconvert() = py::none(),
           py::arg("covariates").noconvert() = py::none(),
           py::arg("weight").noconvert() = py::none(), py::arg("outcome").noconvert() = py::none(),
           py::arg("exposure_spline") = py::none(), py::arg("residual").noconvert() = py::none(),
           py::arg("residual_spline") = py::none(), py::arg("prediction").noconvert() = py::none(),
           py::arg("prediction_spline") = py::none(),
           py::arg("interactions") = std::vector<std::pair<int, int>>{})
      .def_property_readonly("model_columns",
                             [](const Rows& self) { return self.rows.model_columns(); })
      .def_property_readonly("instrument_columns",
                             [](const Rows& self) { return self.rows.instrument_columns(); })
      .def(
          "first_stage_gram",
          [](const Rows& self, std::size_t threads) {
            return gram(self.rows.instrument_columns() + 1, [&](Monitor& monitor, double* out) {
              first_stage_gram(self.rows, threads, monitor, out);
            });
          },
          py::kw_only(), py::arg("threads"))
      .def(
          "first_stage_values",
          [](const Rows& self, const DoubleArray& coefficients, std::size_t threads) {
            require_size("coefficients", coefficients, self.rows.instrument_columns());
            const auto n = static_cast<py::ssize_t>(self.rows.n);
            DoubleArray fit(n), residual(n);
            const double* const b = coefficients.data();
            double* const f = fit.mutable_data();
            double* const r = residual.mutable_data();
            attended([&](Monitor& monitor) {
              first_stage_values(self.rows, b, threads, monitor, f, r);
            });
            return py::make_tuple(fit, residual);
          },
          py::kw_only(), py::arg("coefficients").noconvert(), py::arg("threads"))
      .def(
          "model_gram",
          [](const Rows& self, std::size_t threads) {
            require_model(self);
            const std::size_t m = self.rows.model_columns() + self.rows.instrument_columns() + 1;
            return gram(m, [&](Monitor& monitor, double* out) {
              model_gram(self.rows, threads, monitor, out);
            });
          },
          py::kw_only(), py::arg("threads"))
      .def(
          "curve_residuals",
          [](const Rows& self, const DoubleArray& coefficients, std::size_t threads) {
            require_model(self);
            require_size("coefficients", coefficients, self.rows.model_columns());
            DoubleArray out(static_cast<py::ssize_t>(self.rows.n));
            const double* const b = coefficients.data();
            double* const data = out.mutable_data();
            attended(
                [&](Monitor& monitor) { curve_residuals(self.rows, b, threads, monitor, data); });
            return out;
          },
          py::kw_only(), py::arg("coefficients").noconvert(), py::arg("threads"))
      .def(
          "slope_sums",
          [](const Rows& self, const DoubleArray& coefficients, std::size_t threads) {
            require_model(self);
            if (self.rows.residual_spline.intervals == 0)
              throw std::invalid_argument("residual_spline: expected one");
            const std::size_t m = self.rows.model_columns(), k = self.rows.instrument_columns();
            require_size("coefficients", coefficients, m);
            const std::size_t r = m + k;
            DoubleArray slopes({static_cast<py::ssize_t>(r), static_cast<py::ssize_t>(k)});
            DoubleArray squares(static_cast<py::ssize_t>(k + 1));
            const double* const b = coefficients.data();
            double* const s = slopes.mutable_data();
            double* const t = squares.mutable_data();
            attended([&](Monitor& monitor) { slope_sums(self.rows, b, threads, monitor, s, t); });
            return py::make_tuple(slopes, squares);
          },
          py::kw_only(), py::arg("coefficients").noconvert(), py::arg("threads"))
      .def(
          "influence_gram",
          [](const Rows& self, const DoubleArray& coefficients, double within_weight, double offset,
             const DoubleArray& between, const DoubleArray& within, const DoubleArray& first_stage,
             const std::optional<IndexArray>& order, const std::optional<IndexArray>& starts,
             std::size_t threads) {
            require_model(self);
            const std::size_t m = self.rows.model_columns(), k = self.rows.instrument_columns();
            require_size("coefficients", coefficients, m);
            require_size("between", between, m * k);
            require_size("within", within, m * k);
            require_size("first_stage", first_stage, m * k);
            const Influence influence{coefficients.data(), within_weight, offset,
                                      between.data(),      within.data(), first_stage.data()};
            const std::int64_t* rows_order = nullptr;
            const std::int64_t* first = nullptr;
            std::size_t clusters = 0;
            if (order && starts) {
              require_size("order", *order, self.rows.n);
              if (starts->size() < 2) throw std::invalid_argument("starts: expected 2 or more");
              rows_order = order->data();
              first = starts->data();
              clusters = static_cast<std::size_t>(starts->size() - 1);
              const auto n = static_cast<std::int64_t>(self.rows.n);
              if (first[0] != 0 || first[clusters] != n)
                throw std::invalid_argument("starts: expected 0 first and the rows last");
              for (std::size_t g = 0; g < clusters; ++g)
                if (first[g + 1] <= first[g])
                  throw std::invalid_argument("starts: expected ascending numbers");
              for (std::int64_t i = 0; i < n; ++i)
                if (rows_order[i] < 0 || rows_order[i] >= n)
                  throw std::invalid_argument("order: expected numbers of rows");
            }
            return gram(m, [&](Monitor& monitor, double* out) {
              influence_gram(self.rows, influence, rows_order, first, clusters, threads, monitor,
                             out);
            });
          },
          py::kw_only(), py::arg("coefficients").noconvert(), py::arg("within_weight"),
          py::arg("offset"), py::arg("between").noconvert(), py::arg("within").noconvert(),
          py::arg("first_stage").noconvert(), py::arg("order").noconvert() = py::none(),
          py::arg("starts").noconvert() = py::none(), py::arg("threads"));
  module.def(
      "fold_grams",
      [](const py::array& instruments, const DoubleArray& shift,
         const std::optional<DoubleArray>& covariates, const DoubleArray& exposure,
         const std::optional<DoubleArray>& weight, const FoldArray& fold, std::size_t folds,
         std::size_t threads) {
        return by_type(instruments, [&](auto type) {
          return typed_fold_grams<decltype(type)>(instruments, shift, covariates, exposure, weight,
                                                  fold, folds, threads);
        });
      },
      py::kw_only(), py::arg("instruments").noconvert(), py::arg("shift").noconvert(),
      py::arg("covariates").noconvert(), py::arg("exposure").noconvert(),
      py::arg("weight").noconvert(), py::arg("fold").noconvert(), py::arg("folds"),
      py::arg("threads"));
  module.def(
      "fold_scores",
      [](const py::array& instruments, const DoubleArray& shift, const FoldArray& fold,
         const DoubleArray& coefficients, std::size_t threads) {
        return by_type(instruments, [&](auto type) {
          return typed_fold_scores<decltype(type)>(instruments, shift, fold, coefficients, threads);
        });
      },
      py::kw_only(), py::arg("instruments").noconvert(), py::arg("shift").noconvert(),
      py::arg("fold").noconvert(), py::arg("coefficients").noconvert(), py::arg("threads"));
  module.def(
      "instrument_products",
      [](const py::array& instruments, const DoubleArray& shift, const DoubleArray& values,
         std::size_t threads) {
        return by_type(instruments, [&](auto type) {
          return typed_products<decltype(type)>(instruments, shift, values, threads);
        });
      },
      py::kw_only(), py::arg("instruments").noconvert(), py::arg("shift").noconvert(),
      py::arg("values").noconvert(), py::arg("threads"));
  module.def(
      "largest_functional",
      [](const DoubleArray& draws, const DoubleArray& rows) {
        if (draws.ndim() != 2 || rows.ndim() != 2 || draws.shape(1) != rows.shape(1))
          throw std::invalid_argument("rows: expected as many columns as draws");
        const auto b = static_cast<std::size_t>(draws.shape(0));
        const auto m = static_cast<std::size_t>(rows.shape(0));
        const auto k = static_cast<std::size_t>(rows.shape(1));
        DoubleArray out(draws.shape(0));
        double* const data = out.mutable_data();
        const double* const d = draws.data();
        const double* const r = rows.data();
        {
          const py::gil_scoped_release release;
          largest_functional(d, b, r, m, k, data);
        }
        return out;
      },
      py::arg("draws").noconvert(), py::arg("rows").noconvert());
}

}  // namespace mrfast::bindings
