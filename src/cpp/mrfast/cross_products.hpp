// Sums over rows of products of columns, whose bits do not depend on the number of threads.
#pragma once

#include <cstddef>

#include "mrfast/parallel.hpp"

namespace mrfast {

// out (k, m) = left' diag(weights) right, of left (n, k) and right (n, m); no weights where null.
void cross_products(const double* left, std::size_t k, const double* right, std::size_t m,
                    const double* weights, std::size_t n, double* out, std::size_t threads,
                    Monitor& monitor);

}  // namespace mrfast
