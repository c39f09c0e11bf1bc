// Between the runtime's own files: what happens before the first test.
#ifndef VMM_TESTS_GUESTS_RUNTIME_MAIN_H_
#define VMM_TESTS_GUESTS_RUNTIME_MAIN_H_

namespace guest {

// Before anything else is written to memory: the loader may have left it right behind the image.
void CopyBootInfo();
void RunTests();

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_MAIN_H_
