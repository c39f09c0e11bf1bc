// The fuzz target without the fuzzer: its corpus as it is, cut short, and with bytes changed.
#include <algorithm>
#include <cstddef>
#include <string>

#include <gtest/gtest.h>

#include "base/fuzz_replay.h"

namespace vmm {
namespace {

TEST(FuzzReplayTest, HoldsForTheCorpusCutAndChanged) {
  TryFuzzInput("");
  for (const std::string& input : FuzzCorpus()) {
    TryFuzzInput(input);
    // Registers, and the beginning of the parameters.
    for (size_t i = 0; i < std::min<size_t>(input.size(), 0x100); ++i) {
      if (i % 8 == 0) TryFuzzInput(input.substr(0, i));
      for (const char c : {'\0', '\x01', '\xff'}) {
        std::string changed = input;
        changed[i] = c;
        TryFuzzInput(changed);
      }
    }
  }
}

}  // namespace
}  // namespace vmm
