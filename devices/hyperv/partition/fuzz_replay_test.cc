// A fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed; and sequences from a fixed generator.
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "base/fuzz_replay.h"

namespace vmm {
namespace {

// A run makes a partition anew, which costs milliseconds: a sample of what could be cut and changed.
TEST(FuzzReplayTest, SurvivesTheCorpusCutAndChangedAndWithRandomSequencesBehind) {
  std::mt19937 random(1);
  TryFuzzInput("");
  for (const std::string& input : FuzzCorpus()) {
    TryFuzzInput(input);
    for (int n = 0; n < 8; ++n) {
      TryFuzzInput(input.substr(0, random() % input.size()));
      std::string changed = input;
      changed[random() % changed.size()] = static_cast<char>(random());
      TryFuzzInput(changed);
      for (int i = 0; i < 1500; ++i) changed.push_back(static_cast<char>(random()));
      TryFuzzInput(changed);
    }
  }
}

}  // namespace
}  // namespace vmm
