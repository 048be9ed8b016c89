// What a binding and the guard's options tell the sink at bind.
#ifndef GRADWARDEN_CLIENT_GUARD_RUN_SHAPE_H_
#define GRADWARDEN_CLIENT_GUARD_RUN_SHAPE_H_

#include "client/guard/binding.h"
#include "gradwarden/collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/step_record.h"

namespace gradwarden::guard {

RunShape run_shape(const Binding& binding, const GuardOptions& options, const Collective& ranks);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_RUN_SHAPE_H_
