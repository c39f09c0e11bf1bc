// The fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace vmm {
namespace {

std::vector<std::string> g_files;

void Try(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

TEST(FuzzReplayTest, HoldsForTheCorpusCutAndChanged) {
  ASSERT_FALSE(g_files.empty());
  Try("");
  for (const std::string& path : g_files) {
    std::ifstream file(path, std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(input.empty()) << path;
    Try(input);
    // Registers, and the beginning of the parameters.
    for (size_t i = 0; i < std::min<size_t>(input.size(), 0x100); ++i) {
      if (i % 8 == 0) Try(input.substr(0, i));
      for (const char c : {'\0', '\x01', '\xff'}) {
        std::string changed = input;
        changed[i] = c;
        Try(changed);
      }
    }
  }
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) vmm::g_files.emplace_back(argv[i]);
  return RUN_ALL_TESTS();
}
