// policy_compiler NAME OUT.h OUT.cc HEADER_PATH POLICY [INCLUDED...]: run by seccomp_policy() of seccomp_policy.bzl.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "sandbox/policy_compiler.h"

namespace {

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// serial_policy -> kSerialPolicy
std::string ConstantName(const std::string& name) {
  std::string constant = "k";
  bool upper = true;
  for (const char c : name) {
    if (c == '_') {
      upper = true;
    } else {
      constant += upper ? static_cast<char>(std::toupper(c)) : c;
      upper = false;
    }
  }
  return constant;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::cerr << "usage: policy_compiler NAME OUT.h OUT.cc HEADER_PATH POLICY [INCLUDED...]\n";
    return 2;
  }
  const std::string name = argv[1];
  const std::string header_path = argv[4];
  std::map<std::string, std::string> files;
  for (int i = 5; i < argc; ++i) files[BaseName(argv[i])] = argv[i];
  const auto program = vmm::CompilePolicy(BaseName(argv[5]), [&](absl::string_view file) -> absl::StatusOr<std::string> {
    const auto found = files.find(std::string(file));
    if (found == files.end()) return absl::NotFoundError(absl::StrCat("include '", file, "': not among the rule's includes"));
    std::ifstream stream(found->second);
    if (!stream) return absl::NotFoundError(absl::StrCat("open ", found->second));
    std::stringstream text;
    text << stream.rdbuf();
    return text.str();
  });
  if (!program.ok()) {
    std::cerr << program.status().message() << "\n";
    return 1;
  }
  const std::string constant = ConstantName(name);
  std::ofstream header(argv[2]);
  header << "// Made by //sandbox:policy_compiler. Do not edit.\n#pragma once\n\n#include \"sandbox/seccomp_policy.h\"\n\n"
         << "namespace vmm {\nextern const SeccompPolicy " << constant << ";\n}  // namespace vmm\n";
  std::ofstream source(argv[3]);
  source << "// Made by //sandbox:policy_compiler. Do not edit.\n#include \"" << header_path << "\"\n\nnamespace vmm {\n"
         << "namespace {\nconstexpr sock_filter kProgram[] = {\n";
  for (const sock_filter& instruction : program->program) {
    source << "    {" << instruction.code << ", " << int{instruction.jt} << ", " << int{instruction.jf} << ", "
           << instruction.k << "u},\n";
  }
  // One at least: an array has no fewer.
  source << "};\nconstexpr SeccompCheckedCall kChecked[] = {\n";
  for (const auto& checked : program->checked) {
    source << "    {" << checked.call << ", {";
    for (const std::string& argument : checked.arguments) source << "\"" << argument << "\", ";
    source << "}},\n";
  }
  source << "    {-1, {}},\n};\n}  // namespace\nconstexpr SeccompPolicy " << constant << "{\"" << name
         << "\", kProgram, kChecked};\n}  // namespace vmm\n";
  header.flush();
  source.flush();
  return header && source ? 0 : 1;
}
