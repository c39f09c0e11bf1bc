// A fuzz target without the fuzzer: what every replay test of a corpus needs. Testonly; brings its own main, whose arguments are
// the corpus files.
#ifndef VMM_BASE_FUZZ_REPLAY_H_
#define VMM_BASE_FUZZ_REPLAY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace vmm {

// The corpus, read anew: at least one file, none of them empty, or the calling test fails.
std::vector<std::string> FuzzCorpus();

inline void TryFuzzInput(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace vmm

#endif  // VMM_BASE_FUZZ_REPLAY_H_
