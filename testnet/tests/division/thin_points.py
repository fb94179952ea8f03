"""Prints the thin cuts "all that a tensor needs | the rest" of a network, which no order hides.

    thin_points.py TOOLS MODEL.onnx FEED.npz

TOOLS is the folder of `cuts.py`. One line for each: share of the FLOPs before it, bytes that cross.
"""
import sys

import numpy

tools, model, feed = sys.argv[1:]
sys.path.insert(0, tools)
import cuts

arrays = numpy.load(feed)
found = cuts.analyse(model, {name: arrays[name] for name in arrays.files if not name.startswith("out:")})
for cut in cuts.closure_cuts(found["graph"], found["sizes"], found["macs"]):
    if cut["bytes"] is not None and cut["bytes"] < found["input_bytes"]:
        print(cut["frac"], cut["bytes"])
