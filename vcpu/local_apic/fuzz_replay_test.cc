// A fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed; and sequences from a fixed generator.
#include <cstddef>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "base/fuzz_replay.h"

namespace vmm {
namespace {

TEST(FuzzReplayTest, SurvivesTheCorpusCutAndChanged) {
  TryFuzzInput("");
  for (const std::string& input : FuzzCorpus()) {
    TryFuzzInput(input);
    for (size_t i = 0; i < input.size(); ++i) {
      TryFuzzInput(input.substr(0, i));
      for (const char c : {'\0', '\x07', '\xff'}) {
        std::string changed = input;
        changed[i] = c;
        TryFuzzInput(changed);
      }
    }
  }
}

// The corpus first: it sets up what sequences at random seldom do.
TEST(FuzzReplayTest, SurvivesTheCorpusWithRandomSequencesBehind) {
  std::mt19937 random(1);
  for (const std::string& input : FuzzCorpus()) {
    for (int n = 0; n < 60; ++n) {
      std::string longer = input;
      for (int i = 0; i < 1500; ++i) longer.push_back(static_cast<char>(random()));
      TryFuzzInput(longer);
    }
  }
}

}  // namespace
}  // namespace vmm
