// The console device's process by itself.
#include "devices/virtio/console/console_device.h"

int main(int argc, char** argv) { return vmm::RunConsoleDevice(argc, argv); }
