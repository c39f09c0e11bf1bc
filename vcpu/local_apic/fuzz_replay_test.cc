// A fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed; and sequences from a fixed generator.
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <random>
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

TEST(FuzzReplayTest, SurvivesTheCorpusCutAndChanged) {
  ASSERT_FALSE(g_files.empty());
  Try("");
  for (const std::string& path : g_files) {
    std::ifstream file(path, std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(input.empty()) << path;
    Try(input);
    for (size_t i = 0; i < input.size(); ++i) {
      Try(input.substr(0, i));
      for (const char c : {'\0', '\x07', '\xff'}) {
        std::string changed = input;
        changed[i] = c;
        Try(changed);
      }
    }
  }
}

// The corpus first: it sets up what sequences at random seldom do.
TEST(FuzzReplayTest, SurvivesTheCorpusWithRandomSequencesBehind) {
  std::mt19937 random(1);
  for (const std::string& path : g_files) {
    std::ifstream file(path, std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    for (int n = 0; n < 60; ++n) {
      std::string longer = input;
      for (int i = 0; i < 1500; ++i) longer.push_back(static_cast<char>(random()));
      Try(longer);
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
