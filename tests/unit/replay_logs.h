// Writes a made-up run as each format that replay reads.
#ifndef GRADWARDEN_TESTS_UNIT_REPLAY_LOGS_H_
#define GRADWARDEN_TESTS_UNIT_REPLAY_LOGS_H_

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "daemon/replay/log_row.h"
#include "daemon/replay/record_file.h"

namespace gradwarden::replay::testing {

inline std::string print(const char* format, auto... values) {
  char text[512];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

// Values that every format holds exactly: few digits.
inline std::vector<LogRow> made_up_rows(std::size_t count) {
  std::mt19937_64 random(42);
  std::vector<LogRow> rows(count);
  for (std::size_t i = 0; i < count; ++i) {
    rows[i].step = 10 * (i + 1);
    rows[i].loss = static_cast<double>(2000 + random() % 500) / 1000;
    rows[i].grad_norm = static_cast<double>(100 + random() % 800) / 1000;
    rows[i].learning_rate = static_cast<double>(1 + i % 7) / 10000;
  }
  return rows;
}

using Writer = std::string (*)(const LogRow&);

inline std::string megatron_line(const LogRow& row) {
  return print(
      " iteration %8lu/  500000 | consumed samples: %12lu | elapsed time per iteration (ms): "
      "1870.1 | learning rate: %.3E | global batch size:    96 | lm loss: %.6E | loss scale: 1.0 | "
      "grad norm: %.3f | num zeros: 0.0 | number of skipped iterations:   0 | number of nan "
      "iterations:   0 |\n",
      *row.step, *row.step * 96, *row.learning_rate, *row.loss, *row.grad_norm);
}
inline std::string llm_c_line(const LogRow& row) {
  return print("s:%lu tel:9.9\ns:%lu trl:%.4f lr:%.6f norm:%.3f\n", *row.step, *row.step, *row.loss,
               *row.learning_rate, *row.grad_norm);
}
inline std::string build_nanogpt_line(const LogRow& row) {
  return print("step %5lu | loss: %.6f | lr %.4e | norm: %.4f | dt: 417.11ms | tok/sec: 1257.11\n",
               *row.step, *row.loss, *row.learning_rate, *row.grad_norm);
}
inline std::string meter_line(const LogRow& row) {
  return print(
      "0: TRAIN [%lu][%lu/100]\tTime 0.047 (0.079)\tLoss/tok %.4f (9.1)\tgrad_norm %.4f "
      "(1.1)\tLR %.3e\n",
      *row.step / 100, *row.step % 100, *row.loss, *row.grad_norm, *row.learning_rate);
}
inline std::string json_line(const LogRow& row) {
  return print(
      "{\"run\": \"a, {b} \\\"c\", \"step\": %lu, \"train_loss\": %.6f, \"val_loss\": 9, "
      "\"metrics\": {\"grad_norm\": %.4f, \"lr\": %.6f}, \"note\": null}\n",
      *row.step, *row.loss, *row.grad_norm, *row.learning_rate);
}
inline std::string csv_line(const LogRow& row) {
  return print("%lu,%.6f,%.6f,9.9,\"a, b\",%.6f\n", *row.step, *row.loss, *row.grad_norm,
               *row.learning_rate);
}

inline std::string lines(const std::vector<LogRow>& rows, Writer line) {
  std::string text;
  for (const LogRow& row : rows) text += line(row);
  return text;
}
inline std::string csv(const std::vector<LogRow>& rows) {
  return "global_step,train/loss,grad_norm,eval/loss,comment,learning rate\n" +
         lines(rows, csv_line);
}
inline std::string trainer_state(const std::vector<LogRow>& rows) {
  std::string text =
      "{\n  \"best_metric\": null,\n  \"epoch\": 4.0,\n  \"global_step\": 999,\n"
      "  \"log_history\": [\n";
  for (const LogRow& row : rows) {
    text += print(
        "    {\n      \"epoch\": 0.1,\n      \"grad_norm\": %.4f,\n      "
        "\"learning_rate\": %.6f,\n      \"loss\": %.6f,\n      \"step\": %lu\n    },\n",
        *row.grad_norm, *row.learning_rate, *row.loss, *row.step);
  }
  return text +
         "    {\"epoch\": 4.0, \"step\": 999, \"train_loss\": 77.0, \"train_runtime\": 1.0}\n"
         "  ],\n  \"max_steps\": 999\n}\n";
}

// The wire format of an event with one scalar, written by hand: wall time, step, summary.
inline std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(128 | (value & 127));
  return out + static_cast<char>(value);
}
inline std::string message(int field, const std::string& bytes) {
  return varint(static_cast<std::uint64_t>(field) << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string scalar_event(std::uint64_t step, const std::string& tag, float value) {
  std::string number(sizeof value, '\0');
  std::memcpy(number.data(), &value, sizeof value);
  const std::string entry = message(1, tag) + '\x15' + number;
  return std::string("\x09", 1) + std::string(8, '\0') + '\x10' + varint(step) +
         message(5, message(1, entry));
}
// All of one tag, then all of the next, as some writers flush them.
inline std::string event_file(const std::vector<LogRow>& rows) {
  std::string out = framed(message(3, "brain.Event:2"));
  for (const LogRow& row : rows) {
    out += framed(scalar_event(*row.step, "train/loss", static_cast<float>(*row.loss)));
  }
  for (const LogRow& row : rows) {
    out += framed(scalar_event(*row.step, "train/grad_norm", static_cast<float>(*row.grad_norm)));
    out += framed(
        scalar_event(*row.step, "train/learning_rate", static_cast<float>(*row.learning_rate)));
  }
  return out;
}

}  // namespace gradwarden::replay::testing

#endif  // GRADWARDEN_TESTS_UNIT_REPLAY_LOGS_H_
