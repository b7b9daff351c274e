"""The servers that are compared, Kindling among them. One file for each; PEERS lists them."""

from bench.peers import genai, kindling, llama_cpp_python, llama_server, optimum_onnx, plain
from bench.peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        kindling.CLOUD_RUN,
        kindling.LAMBDA,
        llama_server.PEER,
        llama_server.WITHOUT_AMX,
        plain.PEER,
        optimum_onnx.FP32,
        optimum_onnx.INT8,
        genai.PEER,
        llama_cpp_python.PEER,
    )
}
