// Run-time choice of the instruction set for the few loops that gain from it.
#pragma once

#include <cstdlib>  // defines __GLIBC__ where the C library is glibc

// target_clones needs ifunc: x86-64 Linux with glibc only; everywhere else the plain loop is used.
#if !defined(MRFAST_NO_DISPATCH) && defined(__x86_64__) && defined(__linux__) && \
    defined(__GLIBC__) && (defined(__GNUC__) || defined(__clang__))
#define MRFAST_DISPATCH \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define MRFAST_DISPATCH_NAME "x86-64-v4, x86-64-v3, default"
#else
#define MRFAST_DISPATCH
#define MRFAST_DISPATCH_NAME "none"
#endif
