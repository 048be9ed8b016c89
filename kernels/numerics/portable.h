// What lets one source of the rules serve the host, CUDA kernels and the daemon.
//
// Everything in kernels/numerics is plain data and pure functions: no allocation, no I/O, no
// threads, no clock. The guard inside the step and the detector in the daemon both compile it, so
// they cannot disagree on arithmetic.
#ifndef GRADWARDEN_KERNELS_NUMERICS_PORTABLE_H_
#define GRADWARDEN_KERNELS_NUMERICS_PORTABLE_H_

#ifdef __FAST_MATH__
#error \
    "gradwarden must not be compiled with fast-math: it makes isfinite(NaN) true and hides what the guard looks for"
#endif

#ifdef __CUDACC__
#define GRADWARDEN_HD __host__ __device__
#else
#define GRADWARDEN_HD
#endif

#endif  // GRADWARDEN_KERNELS_NUMERICS_PORTABLE_H_
