// Loads a SavedModel with TensorFlow's C++ loader and compares every signature with recorded
// outputs.
//
//   check MODEL CASES [--numbers=N] [--without=NAME]...
//
// MODEL is a version folder. CASES holds a folder per case, SIGNATURE.NAME, with the inputs as
// serialized TensorProtos in `in/KEY` and the outputs wanted in `out/KEY`. Each case runs as a
// batch and row by row; a case without `out` only has to run. Floats may differ by 1e-5;
// all else must be equal. Every signature needs a case. `--numbers` is how many numbers the stored weights hold; `--without` is a word that may
// not occur in the graph. Exit code 0 if all holds; otherwise 1, and standard error says what not.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/framework/tensor_util.h"
#include "tensorflow/core/public/session.h"
#include "tensorflow/core/util/tensor_bundle/tensor_bundle.h"

namespace fs = std::filesystem;
using tensorflow::Tensor;
using Tensors = std::map<std::string, Tensor>;

constexpr double kTolerance = 1e-5;
constexpr char kInit[] = "__saved_model_init_op";

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << what << std::endl;
  std::exit(1);
}

Tensors Read(const fs::path& folder) {
  Tensors found;
  if (!fs::is_directory(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    tensorflow::TensorProto proto;
    Tensor tensor;
    if (!proto.ParseFromString(bytes) || !tensor.FromProto(proto)) {
      Fail("not a tensor: " + entry.path().string());
    }
    found[entry.path().filename().string()] = tensor;
  }
  return found;
}

Tensors Row(const Tensors& batch, int row) {
  Tensors found;
  for (const auto& [key, tensor] : batch) {
    found[key] = tensorflow::tensor::DeepCopy(tensor.Slice(row, row + 1));
  }
  return found;
}

Tensors Run(const tensorflow::SavedModelBundle& bundle, const std::string& name,
            const Tensors& inputs) {
  const auto& signature = bundle.GetSignatures().at(name);
  std::vector<std::pair<std::string, Tensor>> feeds;
  for (const auto& [key, tensor] : inputs) {
    if (!signature.inputs().contains(key)) Fail(name + " takes no input " + key);
    feeds.emplace_back(signature.inputs().at(key).name(), tensor);
  }
  std::vector<std::string> keys, fetches;
  for (const auto& [key, info] : signature.outputs()) {
    keys.push_back(key);
    fetches.push_back(info.name());
  }
  std::vector<Tensor> results;
  const auto status = bundle.session->Run(feeds, fetches, {}, &results);
  if (!status.ok()) Fail(name + ": " + std::string(status.message()));
  Tensors found;
  for (size_t i = 0; i < keys.size(); ++i) found[keys[i]] = results[i];
  return found;
}

// Gives the largest difference of floats.
double Compare(const std::string& where, const Tensors& got, const Tensors& wanted) {
  double largest = 0.0;
  if (got.size() != wanted.size()) Fail(where + ": another number of outputs");
  for (const auto& [key, want] : wanted) {
    if (!got.count(key)) Fail(where + ": no output " + key);
    const Tensor& have = got.at(key);
    if (have.dtype() != want.dtype() || have.shape() != want.shape()) {
      Fail(where + ": type or shape of " + key + " is " + have.DebugString(0));
    }
    if (want.dtype() == tensorflow::DT_FLOAT) {
      const auto a = have.flat<float>(), b = want.flat<float>();
      for (int64_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(double{a(i)} - double{b(i)});
        if (!(difference <= kTolerance)) {
          Fail(where + ": " + key + " differs by " + std::to_string(difference));
        }
        largest = std::max(largest, difference);
      }
    } else if (want.dtype() == tensorflow::DT_STRING) {
      const auto a = have.flat<tensorflow::tstring>(), b = want.flat<tensorflow::tstring>();
      for (int64_t i = 0; i < a.size(); ++i) {
        if (a(i) != b(i)) Fail(where + ": " + key + " differs");
      }
    } else if (have.tensor_data() != want.tensor_data()) {
      Fail(where + ": " + key + " differs");
    }
  }
  return largest;
}

int64_t CountNumbers(const fs::path& model) {
  const std::string prefix = (model / "variables" / "variables").string();
  tensorflow::BundleReader reader(tensorflow::Env::Default(), prefix);
  if (!reader.status().ok()) Fail("no weights: " + std::string(reader.status().message()));
  int64_t count = 0;
  for (reader.Seek(""); reader.Valid(); reader.Next()) {
    const std::string key(reader.key());
    tensorflow::TensorShape shape;
    if (key.find("VARIABLE_VALUE") == std::string::npos) continue;
    if (!reader.LookupTensorShape(key, &shape).ok()) Fail("no shape of " + key);
    count += shape.num_elements();
  }
  return count;
}

int main(int argc, char** argv) {
  if (argc < 3) Fail("usage: check MODEL CASES [--numbers=N] [--without=NAME]...");
  const fs::path model = argv[1], cases = argv[2];
  tensorflow::SavedModelBundle bundle;
  const auto status = tensorflow::LoadSavedModel(tensorflow::SessionOptions(),
                                                 tensorflow::RunOptions(), model.string(),
                                                 {"serve"}, &bundle);
  if (!status.ok()) Fail("not loaded: " + std::string(status.message()));

  const std::string graph = bundle.meta_graph_def.graph_def().SerializeAsString();
  for (int i = 3; i < argc; ++i) {
    const std::string option = argv[i];
    if (option.rfind("--numbers=", 0) == 0) {
      const int64_t count = CountNumbers(model), wanted = std::stoll(option.substr(10));
      if (count != wanted) Fail("numbers stored: " + std::to_string(count));
    } else if (option.rfind("--without=", 0) == 0) {
      const std::string word = option.substr(10);
      if (graph.find(word) != std::string::npos) Fail("the graph holds the name " + word);
    } else {
      Fail("unknown option " + option);
    }
  }

  std::set<std::string> left;
  for (const auto& [name, signature] : bundle.GetSignatures()) {
    if (name != kInit) left.insert(name);
  }
  double largest = 0.0;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(cases)) {
    const std::string name = entry.path().stem().string();
    const std::string where = entry.path().filename().string();
    if (!bundle.GetSignatures().count(name)) Fail("no signature " + name);
    const Tensors inputs = Read(entry.path() / "in"), wanted = Read(entry.path() / "out");
    if (inputs.empty()) Fail(where + ": no inputs");
    const Tensors batch = Run(bundle, name, inputs);
    if (!wanted.empty()) {
      largest = std::max(largest, Compare(where, batch, wanted));
      const int rows = inputs.begin()->second.dim_size(0);
      for (int row = 0; row < rows; ++row) {
        const Tensors got = Run(bundle, name, Row(inputs, row));
        largest = std::max(largest, Compare(where + " row", got, Row(wanted, row)));
      }
    }
    left.erase(name);
    ++count;
  }
  if (!left.empty()) Fail("no case for " + *left.begin());
  std::cout << count << " cases, largest difference " << largest << std::endl;
  return 0;
}
