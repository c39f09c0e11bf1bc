// The product's dispatch, as small as the test needs it.
#include <cstring>

#include "devices/platform/rtc/rtc_process.h"

int main(int argc, char** argv) {
  if (argc >= 3 && std::strcmp(argv[1], "device") == 0 && std::strcmp(argv[2], "rtc") == 0) return vmm::RunRtcDevice(argc, argv);
  return 2;
}
