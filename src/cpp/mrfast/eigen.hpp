// Eigenvalues and eigenvectors of a symmetric matrix, on one thread, so that they are the same bits
// whatever LAPACK is installed and however many threads it uses.
#pragma once

#include <cstddef>
#include <vector>

namespace mrfast {

// a (n, n) row by row is replaced by the eigenvectors, one a row; values ascend. False where the
// iteration did not converge.
bool symmetric_eigen(std::vector<double>& a, std::size_t n, std::vector<double>& values);

}  // namespace mrfast
