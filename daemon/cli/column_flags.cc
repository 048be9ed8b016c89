#include "daemon/cli/column_flags.h"

#include <cstdio>

namespace gradwarden::cli {
namespace {

bool refuse(const std::string& what) {
  std::fprintf(stderr, "gradwarden: %s\n", what.c_str());
  return false;
}

}  // namespace

bool read_columns(const std::vector<std::string>& texts, replay::ColumnChoice& choice) {
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    const auto field = replay::field_named(text.substr(0, equals));
    if (equals == std::string::npos || equals + 1 == text.size() || !field) {
      return refuse("--column is \"" + text +
                    "\"; allowed: FIELD=NAME with FIELD one of step, loss, grad_norm, lr, "
                    "loss_scale, update_norm, skipped (see --help)");
    }
    choice[*field] = text.substr(equals + 1);
  }
  return true;
}

}  // namespace gradwarden::cli
