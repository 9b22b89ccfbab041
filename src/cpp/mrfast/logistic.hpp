// Passes over the rows of logistic regressions: log likelihood, its gradient and information.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "mrfast/parallel.hpp"

namespace mrfast {

enum class NumberType { kDouble, kFloat, kInt8 };

// A column of numbers somewhere in memory; the stride is in bytes.
struct Column {
  const char* data = nullptr;  // null: absent
  std::ptrdiff_t stride = 0;
  NumberType type = NumberType::kDouble;
};

struct ColumnMoments {
  double mean = 0, sd = 0, smallest = 0, largest = 0;
  bool finite = true;
};

// Moments of every column, for choosing origin and scale: not exact to the last digit.
std::vector<ColumnMoments> column_moments(std::size_t n, const std::vector<Column>& columns,
                                          std::size_t threads, Monitor& monitor);

// One regression to be evaluated: coefficients of the intercept, the covariates and the exposure.
struct LogisticPoint {
  const double* coefficients = nullptr;
  Column exposure;    // absent: the one that is packed with the rows
  double centre = 0;  // of a given exposure
  double scale = 1;   // the exposure counts as (value - centre) * scale
};

// What is added up over the rows of one regression; K = covariates + 2 coefficients.
struct LogisticSums {
  double* log_likelihood = nullptr;
  double* gradient = nullptr;     // (K,)
  double* information = nullptr;  // (K, K), the lower triangle
};

// Sums over the rows where a dosage is known, at coefficients of intercept and covariates (k).
struct DosageSums {
  double n = 0, cases = 0;
  double coded_cases = 0, coded_controls = 0;  // carriers of the coded allele: dosage >= 0.5
  double other_cases = 0, other_controls = 0;  // carriers of the other one: dosage < 1.5
  double sum = 0;
  double smallest = std::numeric_limits<double>::infinity();
  double largest = -std::numeric_limits<double>::infinity();
  double score = 0, exposure_information = 0;
  std::vector<double> cross;     // (k,): information of the dosage and each coefficient
  std::vector<double> left_out;  // (k + k k,): gradient, information (lower) of the other rows

  void leave_out(const double* const* columns, std::size_t k, std::size_t row, double residual,
                 double variance);
  void add(const DosageSums& other);
};

// Outcome, covariates, weights and offset in blocks of rows, column by column in each.
class LogisticRows {
 public:
  // Columns count as (value - centre) * scale.
  LogisticRows(std::size_t n, const Column& outcome, const std::vector<Column>& covariates,
               const Column& exposure, const std::vector<double>& centre,
               const std::vector<double>& scale, const Column& weights, const Column& offset,
               std::size_t threads, Monitor& monitor);

  std::size_t rows() const { return n_; }
  std::size_t coefficients() const { return covariates_ + 2; }
  bool has_exposure() const { return exposure_; }
  std::size_t bytes() const { return blocks_ * stride_ * sizeof(double); }

  // One pass over the rows for all points. Missing values (NaN, negative in int8) of a point's own
  // exposure leave their rows out. Where `information` is false, only the value and the gradient.
  // Plain: the information is that of a linear regression with variance 1, and nothing else counts.
  void evaluate(const std::vector<LogisticPoint>& points, const std::vector<LogisticSums>& sums,
                bool information, bool plain, std::size_t threads, Monitor& monitor) const;

  // Firth's score (K,) with the packed exposure: the residual of row i is
  // y_i - mu_i + h_i (1/2 - mu_i) with the leverage h_i = v_i x_i' inverse x_i.
  void firth_score(const double* coefficients, const double* inverse, double* score,
                   std::size_t threads, Monitor& monitor) const;

  // Counts, score and information of many dosages where their own coefficients are zero.
  std::vector<DosageSums> score_dosages(const double* coefficients,
                                        const std::vector<Column>& dosages, std::size_t threads,
                                        Monitor& monitor) const;

 private:
  struct Cursor;

  std::size_t chunks() const;
  std::size_t blocks_per_chunk() const;
  const double* block(std::size_t i) const { return data_ + i * stride_; }

  std::size_t n_, covariates_, blocks_, stride_;
  bool exposure_, weighted_, shifted_;
  std::unique_ptr<double[]> memory_;
  double* data_;
};

}  // namespace mrfast
