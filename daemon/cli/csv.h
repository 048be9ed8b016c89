// Reports as CSV: RFC 4180 quoting, numbers with all digits, so that what is read again is the
// same.
#ifndef GRADWARDEN_DAEMON_CLI_CSV_H_
#define GRADWARDEN_DAEMON_CLI_CSV_H_

#include <string>

#include "gradwarden/v1/report.pb.h"

namespace gradwarden::cli {

// Names of the columns, ended by newline.
std::string csv_heading();
// One report, ended by newline. What a report does not have is empty; several batch ids are joined
// by blanks; `skipped` is 1 where the update was really left out.
std::string csv_line(const std::string& attempt, const v1::Report& report);

// The shortest decimal that reads as the same double; nan, inf, -inf.
std::string exact(double value);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_CSV_H_
