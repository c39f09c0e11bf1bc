// Files in the source tree that a test makes: compared in a test run, written anew by `bazel run TEST -- --update`.
//
// Threads  confined.
// Errors   an empty string is "the same"; otherwise it says what to do.
#ifndef VMM_VMM_CONFIG_GOLDEN_FILE_H_
#define VMM_VMM_CONFIG_GOLDEN_FILE_H_

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace vmm {

// Takes --update out of the test's arguments.
inline bool WantsGoldenUpdate(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--update") == 0) return true;
  }
  return false;
}

// `path` starts at the root of the source tree, which is where a test runs (in its copy) and what `bazel run` names.
inline std::string CheckGoldenFile(const std::string& path, const std::string& wanted, bool update,
                                   const std::string& target) {
  const char* const workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  if (update && workspace != nullptr) {
    std::FILE* const file = std::fopen((std::string(workspace) + "/" + path).c_str(), "wb");
    if (file == nullptr) return "cannot write " + path;
    const bool written = std::fwrite(wanted.data(), 1, wanted.size(), file) == wanted.size();
    return std::fclose(file) == 0 && written ? "" : "cannot write " + path;
  }
  std::string found;
  if (std::FILE* const file = std::fopen(path.c_str(), "rb"); file != nullptr) {
    char buffer[4096];
    for (size_t count = 0; (count = std::fread(buffer, 1, sizeof(buffer), file)) != 0;) found.append(buffer, count);
    std::fclose(file);
  }
  if (found == wanted) return "";
  return path + " is out of date: bazel run " + target + " -- --update";
}

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_GOLDEN_FILE_H_
