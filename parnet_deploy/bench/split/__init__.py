"""Where the time of a call goes: from image file to answer, part by part, under the roofline."""
