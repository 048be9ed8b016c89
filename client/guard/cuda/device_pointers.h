// Checks at bind that gradients lie where kernels of the current device can reach them.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_POINTERS_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_POINTERS_H_

#include <span>
#include <string>

#include "client/guard/binding.h"
#include "gradwarden/tensor.h"

namespace gradwarden::guard {

// What is wrong with the first shard that is out of reach, or nothing.
std::string check_device_pointers(const Bindings& bindings);

// False if a shard that has elements would be at a null pointer; `data` by position in bind's list.
bool all_given(std::span<const Segment> segments, std::span<void* const> data);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_POINTERS_H_
