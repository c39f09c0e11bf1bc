#include "base/fuzz_replay.h"

#include <fstream>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>

namespace vmm {
namespace {

std::vector<std::string> g_files;

}  // namespace

std::vector<std::string> FuzzCorpus() {
  EXPECT_FALSE(g_files.empty());
  std::vector<std::string> corpus;
  for (const std::string& path : g_files) {
    std::ifstream file(path, std::ios::binary);
    std::string input{std::istreambuf_iterator<char>(file), {}};
    EXPECT_FALSE(input.empty()) << path;
    if (!input.empty()) corpus.push_back(std::move(input));
  }
  return corpus;
}

}  // namespace vmm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) vmm::g_files.emplace_back(argv[i]);
  return RUN_ALL_TESTS();
}
