// The parts that the module _core is put together from, each in a file of its own. Called once,
// with the GIL held, when the module is imported.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_PARTS_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_PARTS_H_

#include <nanobind/nanobind.h>

#include <memory>

#include "client/python/core/rank_guard.h"

namespace gradwarden::python {

// Shared by copies that come and go without the GIL; its end takes it.
std::shared_ptr<nanobind::object> shared(nanobind::object object);

void add_clip(nanobind::module_& m);
void add_device(nanobind::module_& m, nanobind::class_<RankGuard>& guard);
void add_follower(nanobind::module_& m);
void add_options(nanobind::module_& m);
void add_outcome(nanobind::module_& m);
void add_outside(nanobind::module_& m, nanobind::class_<RankGuard>& guard);

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_PARTS_H_
