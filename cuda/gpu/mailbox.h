// One number that a stream sends to the host, which goes on working until it looks.
#pragma once
#include "gpu/platform.h"

namespace scene3d {
namespace gpu {

class Mailbox {
 public:
  Mailbox() = default;
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Queues a copy of the number on the device.
  void send(const float* from, Stream stream);
  // Waits for what was sent last.
  float wait();

 private:
  float* slot_ = nullptr;  // memory of the host that the device writes to
  void* event_ = nullptr;
};

}  // namespace gpu
}  // namespace scene3d
