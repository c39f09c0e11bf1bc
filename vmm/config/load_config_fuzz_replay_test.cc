// The fuzz target without the fuzzer: its corpus as it is, cut short at every byte, and with every byte changed.
#include <dirent.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <gtest/gtest.h>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace vmm {
namespace {

std::string g_corpus;

void Try(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

std::vector<std::string> Corpus() {
  std::vector<std::string> inputs;
  DIR* const folder = ::opendir(g_corpus.c_str());
  if (folder == nullptr) return inputs;
  while (const dirent* const entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    std::string input;
    if (std::FILE* const file = std::fopen((g_corpus + "/" + entry->d_name).c_str(), "rb"); file != nullptr) {
      char buffer[4096];
      for (size_t count = 0; (count = std::fread(buffer, 1, sizeof(buffer), file)) != 0;) input.append(buffer, count);
      std::fclose(file);
    }
    inputs.push_back(input);
  }
  ::closedir(folder);
  return inputs;
}

TEST(LoadConfigFuzzReplayTest, SurvivesTheCorpusCutAndChanged) {
  const std::vector<std::string> corpus = Corpus();
  ASSERT_FALSE(corpus.empty());
  Try("");
  for (const std::string& input : corpus) {
    Try(input);
    for (size_t i = 0; i < input.size(); ++i) {
      Try(input.substr(0, i));
      std::string changed = input;
      for (const char c : {'\0', '"', '9'}) {
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
  if (argc > 1) vmm::g_corpus = argv[1];
  return RUN_ALL_TESTS();
}
