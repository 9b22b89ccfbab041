// Random variates of simulated people. Every number depends on the key, the stream, its column and
// its row alone: more rows leave the first ones as they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mrfast/normal_law.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// At most 2^32 rows. out: n numbers.
void normal_variates(const NormalStream& stream, std::uint32_t column, std::size_t n, double* out,
                     Monitor& monitor);
// On [0, 1), 53 bits.
void uniform_variates(const NormalStream& stream, std::uint32_t column, std::size_t n, double* out,
                      Monitor& monitor);
// Of mean 1.
void exponential_variates(const NormalStream& stream, std::uint32_t column, std::size_t n,
                          double* out, Monitor& monitor);
// Beta(a, b) from two gamma variates: Marsaglia, Tsang (2000), doi:10.1145/358407.358414.
void beta_variates(const NormalStream& stream, double a, double b, std::size_t n, double* out,
                   Monitor& monitor);

// Binomial(2, frequencies[j]) for row i and column j in out[i * columns + j]; the probabilities are
// multiples of 2^-32.
void dosage_variates(const NormalStream& stream, const double* frequencies, std::size_t columns,
                     std::size_t n, std::int8_t* out, Monitor& monitor);

// out[i] = sum over j of weights[j] dosages[i, j], the strides in bytes.
void weighted_dosages(const std::int8_t* dosages, std::ptrdiff_t row_stride,
                      std::ptrdiff_t column_stride, const double* weights, std::size_t columns,
                      std::size_t n, double* out, Monitor& monitor);

}  // namespace mrfast
