#!/bin/bash
echo trained
