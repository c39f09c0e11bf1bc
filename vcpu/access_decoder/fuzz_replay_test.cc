// A fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed; and instructions from a fixed
// generator.
#include <array>
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

// Every opcode of one and two bytes, behind prefixes, with registers and modes at random.
TEST(FuzzReplayTest, SurvivesRandomInstructions) {
  std::mt19937 random(1);
  for (int n = 0; n < 5'000; ++n) {
    std::string input;
    for (int i = 0; i < 120; ++i) input.push_back(static_cast<char>(random()));
    input[0] = static_cast<char>(n);
    // The opcode goes through all values, alone, behind 0f, 66, REX.W, and an EVEX prefix.
    const std::string opcode(1, static_cast<char>(n / 5));
    const std::array<std::string, 5> prefixes = {"", "\x0f", "\x66", "\x48", "\x62\xf1\x7c\x49"};
    const std::string start = prefixes[n % 5] + opcode;
    input.replace(2, start.size(), start);
    TryFuzzInput(input);
  }
}

}  // namespace
}  // namespace vmm
