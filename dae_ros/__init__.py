"""Depth from event cameras on ROS 2, that keeps learning on the robot."""
