// A fuzz target without the fuzzer: its corpus as it is, cut short, with bytes changed, and with nonsense behind.
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "base/fuzz_replay.h"

namespace vmm {
namespace {

TEST(FuzzReplayTest, SurvivesTheCorpusCutAndChanged) {
  std::mt19937 random(1);
  TryFuzzInput("");
  for (const std::string& input : FuzzCorpus()) {
    TryFuzzInput(input);
    for (int n = 0; n < 40; ++n) {
      TryFuzzInput(input.substr(0, random() % input.size()));
      std::string changed = input;
      for (size_t changes = random() % 4 + 1; changes != 0; --changes) changed[random() % changed.size()] = static_cast<char>(random());
      TryFuzzInput(changed);
      for (int i = 0; i < 64; ++i) changed.push_back(static_cast<char>(random()));
      TryFuzzInput(changed);
    }
  }
}

}  // namespace
}  // namespace vmm
