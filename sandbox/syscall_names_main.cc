// syscall_names_generator OUT.cc: the table behind syscall_names.h, from libseccomp. Build time only.
#include <seccomp.h>

#include <cstdlib>
#include <fstream>

#include "sandbox/syscall_names.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ofstream source(argv[1]);
  source << "// Made by //sandbox:syscall_names_generator. Do not edit.\n#include \"sandbox/syscall_names.h\"\n\nnamespace vmm {\n"
         << "namespace {\nconstexpr const char* kNames[kSyscallNumbers] = {\n";
  for (int number = 0; number < vmm::kSyscallNumbers; ++number) {
    char* const name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    if (name == nullptr) {
      source << "    nullptr,\n";
    } else {
      source << "    \"" << name << "\",\n";
    }
    std::free(name);
  }
  source << "};\n}  // namespace\nconst char* SyscallName(int number) noexcept {\n"
         << "  return number >= 0 && number < kSyscallNumbers ? kNames[number] : nullptr;\n}\n}  // namespace vmm\n";
  source.flush();
  return source ? 0 : 1;
}
