// An authority of certificates in a folder, made with the openssl command. For tests.
#ifndef GRADWARDEN_TESTS_E2E_AUTHORITY_H_
#define GRADWARDEN_TESTS_E2E_AUTHORITY_H_

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "tests/e2e/daemon_process.h"

namespace gradwarden::testing {

inline std::string content_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Aside and renamed, as a person or a tool that renews a secret should.
inline void replace_file(const std::string& path, const std::string& content) {
  {
    std::ofstream file(path + ".new");
    file << content;
  }
  const std::string command = "chmod 600 " + path + ".new && mv " + path + ".new " + path;
  if (run_program({"/bin/sh", "-c", command}, nullptr) != 0) {
    throw std::runtime_error("cannot replace " + path);
  }
}

// Files: <name>.crt and <name>.key, the authority's among them.
class Authority {
 public:
  Authority(const std::string& folder, const std::string& name) : folder_(folder), name_(name) {
    shell("openssl req -x509 " + kNewKey + " -keyout " + name + ".key -out " + name +
          ".crt -days 3 -subj '/CN=" + name + "'");
  }

  std::string file() const { return folder_ + "/" + name_ + ".crt"; }
  std::string certificate(const std::string& name) const { return folder_ + "/" + name + ".crt"; }
  std::string key(const std::string& name) const { return folder_ + "/" + name + ".key"; }

  // A certificate for this host, good for both ends; with `days` below 0 it has expired.
  void issue(const std::string& name, int days = 2) const {
    shell("openssl req " + kNewKey + " -keyout " + name + ".key -out " + name +
          ".csr -subj '/CN=" + name + "'");
    shell("printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > " + name + ".ext");
    shell("openssl x509 -req -in " + name + ".csr -CA " + name_ + ".crt -CAkey " + name_ +
          ".key -CAcreateserial -out " + name + ".crt -extfile " + name + ".ext -days " +
          std::to_string(days));
  }

 private:
  void shell(const std::string& command) const {
    std::string output;
    if (run_program({"/bin/bash", "-c", "cd " + folder_ + " && " + command}, &output) != 0) {
      throw std::runtime_error(command + ": " + output);
    }
  }

  inline static const std::string kNewKey =
      "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
  const std::string folder_;
  const std::string name_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_AUTHORITY_H_
